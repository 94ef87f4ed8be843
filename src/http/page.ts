/**
 * The status page: one self-contained HTML text that polls /api/status each second and draws it. It needs no
 * other file and no other host. Everything shown is set as text, never as markup; every field may be absent.
 */

const STYLE = `
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #667085;
  --line: #e4e7ec; --good: #14804a; --warn: #a15c07; --bad: #b42318; --accent: #3b5bdb; }
@media (prefers-color-scheme: dark) { :root { --bg: #11151c; --card: #1a2029; --ink: #e6e9ef;
  --soft: #98a2b3; --line: #2b3340; --good: #4cc38a; --warn: #f1a10d; --bad: #f97066; --accent: #8da2fb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; transition: opacity .3s; }
main.stale { opacity: .45; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem; margin-bottom: 1.25rem; }
h1 { font-size: 1.25rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: .8rem; margin: 2rem 0 .6rem; color: var(--soft); font-weight: 600;
  text-transform: uppercase; letter-spacing: .06em; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; }
#state { padding: 1.1rem 1.25rem; border-left: 4px solid var(--soft); }
#state.good { border-left-color: var(--good); } #state.warn { border-left-color: var(--warn); }
#state strong { font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
#state p { margin: .15rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
#numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin-top: .75rem; }
#numbers div { padding: .8rem 1rem; }
#numbers b { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
#numbers span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .55rem 1rem; white-space: nowrap; border-top: 1px solid var(--line); }
th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .85rem; }
td.wide { white-space: normal; min-width: 12rem; }
td.number, th.number { text-align: right; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
#state.good, #state.warn { color: inherit; }
#problems { margin: .75rem 0 0; padding: .8rem 1.25rem .8rem 2.25rem; border-left: 4px solid var(--warn); }
#problems:empty, .hidden { display: none; }
#notice { max-width: 72rem; margin: 0 auto; padding: 1rem 1.25rem 0; }
#lost { padding: .7rem 1.25rem; margin-bottom: .75rem; border-left: 4px solid var(--bad); }
`;

/** Runs in the browser: plain JavaScript. No backticks and no dollar-brace, as it stands in a template. */
const SCRIPT = `
"use strict";
var CAUSES = {
  "no-master-yet": "no master has been found yet",
  "connection-lost": "the connections to the master were closed or refused",
  "silent": "the master does not answer",
  "shutting-down": "the master is shutting down",
  "loading": "the master is loading its data",
  "role-changed": "the master changed its role; its successor is not verified yet",
  "history-refused": "the master came back with a history that does not continue ours",
  "no-common-truth": "several nodes claim to be master and none provably continues the other",
  "switchover": "a planned switch is under way"
};
var previous = null;
function by(id) { return document.getElementById(id); }
function object(value) { return value !== null && typeof value === "object" ? value : {}; }
function list(value) { return Array.isArray(value) ? value : []; }
function known(value) { return value !== undefined && value !== null && value !== ""; }
function text(value) { return known(value) ? String(value) : "–"; }
function number(value) { return typeof value === "number" ? value.toLocaleString("en") : "–"; }
function duration(ms) {
  if (typeof ms !== "number") return "–";
  if (ms < 1000) return Math.round(ms) + " ms";
  if (ms < 60000) return (ms / 1000).toFixed(1) + " s";
  if (ms < 3600000) return Math.floor(ms / 60000) + " min";
  if (ms < 172800000) return Math.floor(ms / 3600000) + " h " + Math.floor(ms / 60000) % 60 + " min";
  return Math.floor(ms / 86400000) + " days";
}
function bytes(value) {
  if (typeof value !== "number") return "–";
  if (value < 1024) return value + " B";
  if (value < 1048576) return (value / 1024).toFixed(1) + " kB";
  if (value < 1073741824) return (value / 1048576).toFixed(1) + " MB";
  return (value / 1073741824).toFixed(1) + " GB";
}
function clock(at) {
  var time = new Date(at);
  return known(at) && !isNaN(time.getTime()) ? time.toLocaleString() : text(at);
}
function make(tag, content, className) {
  var element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
}
function fillTable(id, rows, empty) {
  var body = by(id);
  var columns = body.parentNode.tHead.rows[0].cells.length;
  var made = rows.map(function (cells) {
    var row = document.createElement("tr");
    cells.forEach(function (cell) { row.appendChild(make("td", cell[0], cell[1])); });
    return row;
  });
  if (made.length === 0) {
    var row = document.createElement("tr");
    var cell = make("td", empty, "soft");
    cell.colSpan = columns;
    row.appendChild(cell);
    made.push(row);
  }
  body.replaceChildren.apply(body, made);
}
function drawState(epoch) {
  var cause = epoch.holdCause;
  var master = known(epoch.master);
  var writable = master && !known(cause);
  by("state").className = "card " + (writable ? "good" : "warn");
  by("headline").textContent = writable ? "Writes go to " + epoch.master
    : "Writes are held: " + (known(cause) ? CAUSES[cause] || cause : "no master is known");
  var history = object(epoch.history);
  by("detail").textContent = "Epoch " + text(epoch.number)
    + (master && !writable ? " · last master " + epoch.master : "")
    + (known(history.replid) ? " · history " + String(history.replid).slice(0, 8) + "…" : "")
    + (known(history.offset) ? " at " + number(history.offset) : "");
  document.title = (writable ? "" : "holding – ") + "Holdfast";
}
function total(status) {
  var counters = object(status.counters);
  if (typeof counters.requests === "number") return counters.requests;
  if (typeof counters.reads !== "number" && typeof counters.writes !== "number") return null;
  return (counters.reads || 0) + (counters.writes || 0);
}
function rate(status, now) {
  var count = total(status);
  var before = previous;
  previous = { count: count, at: now };
  if (before === null || count === null || before.count === null || count < before.count) return null;
  return now > before.at ? Math.round((count - before.count) * 1000 / (now - before.at)) : null;
}
function percent(share) {
  return typeof share === "number" ? (share * 100).toFixed(1) + " %" : "–";
}
function drawNumbers(status) {
  var hold = object(status.hold);
  var reads = object(status.reads);
  var cards = [
    [number(object(status.clients).connected), "clients connected"],
    [number(rate(status, performance.now())), "requests per second"],
    [number(hold.now), "held now" + (hold.bytes > 0 ? ", " + bytes(hold.bytes) : "")],
    [number(hold.held), "held since the start, " + number(hold.released) + " released"],
    [number(hold.expired), "holds expired"],
    [number(object(status.counters).uncertain), "uncertain answers"],
    [number(reads.replica), "reads of replicas" + (reads.hedges > 0 ? ", " + number(reads.hedges) + " hedged" : "")],
    [percent(reads.freshnessShare), "of reads to the master: no replica fresh enough"],
    [number(reads.masterNoneFit), "reads of the master: no replica fit"]
  ];
  by("numbers").replaceChildren.apply(by("numbers"), cards.map(function (card) {
    var element = make("div", "", "card");
    element.appendChild(make("b", card[0]));
    element.appendChild(make("span", card[1]));
    return element;
  }));
}
function drawNodes(nodes) {
  fillTable("nodes", list(nodes).map(function (entry) {
    var node = object(entry);
    var fit = ["not used", "warn"];
    if (node.reachable === false) fit = ["unreachable", "bad"];
    else if (node.fit && node.slow) fit = ["in use, slow", "warn"];
    else if (node.fit) fit = ["in use", "good"];
    return [[text(node.id)], [text(node.role)], fit, [duration(node.lagMs), "number"],
      [bytes(node.lagBytes), "number"], [number(node.requests), "number"], [number(node.reads), "number"],
      [number(node.outstanding), "number"], [text(node.reason), "wide soft"]];
  }), "No nodes yet.");
}
function drawFailovers(failovers) {
  var newestFirst = list(failovers).map(object).sort(function (one, other) {
    return (other.epoch || 0) - (one.epoch || 0);
  });
  fillTable("failovers", newestFirst.slice(0, 20).map(function (entry) {
    var lost = ["not known", "number warn"];
    if (typeof entry.lostBytes === "number") {
      lost = [bytes(entry.lostBytes), entry.lostBytes > 0 ? "number bad" : "number"];
    }
    return [[text(entry.epoch), "number"], [clock(entry.at)], [text(entry.from) + " → " + text(entry.to)],
      [duration(entry.holdMs), "number"], [number(entry.sessionsHeld), "number"],
      [number(entry.uncertain), "number"], lost,
      [text(entry.reason) + (known(entry.seenBy) ? " (seen by " + entry.seenBy + ")" : ""), "wide soft"]];
  }), "None since the start.");
}
function draw(status) {
  by("about").textContent = (known(status.version) ? "version " + status.version + " · " : "")
    + "up " + duration(typeof status.uptimeSeconds === "number" ? status.uptimeSeconds * 1000 : null);
  drawState(object(status.epoch));
  drawNumbers(status);
  by("problems").replaceChildren.apply(by("problems"), list(status.problems).map(function (problem) {
    return make("li", text(problem));
  }));
  drawNodes(status.nodes);
  drawFailovers(status.failovers);
}
function reached(yes, why) {
  by("lost").className = yes ? "hidden" : "card";
  by("lost").textContent = yes ? "" : "The proxy does not answer (" + why + "). What is below is old.";
  by("page").className = yes ? "" : "stale";
}
async function poll() {
  try {
    var response = await fetch("/api/status", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error("HTTP " + response.status);
    var status = object(await response.json());
    reached(true, "");
    draw(status);
  } catch (error) {
    previous = null;
    reached(false, error && error.message ? error.message : "no connection");
  }
  setTimeout(poll, 1000);
}
poll();
`;

export const STATUS_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<div id="notice"><div id="lost" class="hidden" role="alert"></div></div>
<main id="page">
<header><h1>Holdfast</h1><span id="about" class="soft"></span></header>
<section id="state" class="card"><strong id="headline">Asking the proxy…</strong><p id="detail"></p></section>
<ul id="problems" class="card"></ul>
<section id="numbers"></section>
<h2>Nodes</h2>
<div class="card scroll"><table>
<thead><tr><th>Node</th><th>Role</th><th>State</th><th class="number">Behind</th>
<th class="number">Bytes behind</th><th class="number">Requests</th><th class="number">Reads</th>
<th class="number">Unanswered</th><th>Why</th></tr></thead>
<tbody id="nodes"></tbody></table></div>
<h2>Last switches</h2>
<div class="card scroll"><table>
<thead><tr><th class="number">Epoch</th><th>When</th><th>From → to</th><th class="number">Writes held</th>
<th class="number">Sessions held</th><th class="number">Uncertain</th><th class="number">Lost</th>
<th>Reason</th></tr>
</thead><tbody id="failovers"></tbody></table></div>
</main>
<script>${SCRIPT}</script>
</body>
</html>
`;
