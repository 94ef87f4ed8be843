/** What the kernel says about a process (Linux). */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));

/** CPU time a process has used so far, all threads, user and system, in seconds (to 10 ms). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may hold spaces: the fields are counted behind it, from the third on.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [userTicks, systemTicks] = [Number(fields[11]), Number(fields[12])];
  return (userTicks + systemTicks) / TICKS_PER_SECOND;
}

/**
 * As `cpuSeconds`, to the nanosecond; without what threads that have ended had used
 * (Documentation/scheduler/sched-stats.rst of the kernel).
 */
export function fineCpuSeconds(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const usedNs = tasks.map((task) =>
    Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ", 1)[0]),
  );
  return usedNs.reduce((sum, each) => sum + each, 0) / 1e9;
}

/** CPU time the whole machine has used so far, in seconds: all processes, interrupts, the hypervisor. */
export function machineCpuSeconds(): number {
  // cpu user nice system idle iowait irq softirq steal … (proc(5))
  const fields =
    readFileSync("/proc/stat", "utf8").split("\n", 1)[0]?.split(/\s+/).slice(1).map(Number) ?? [];
  const ticks = [0, 1, 2, 5, 6, 7].reduce((sum, index) => sum + (fields[index] ?? 0), 0);
  return ticks / TICKS_PER_SECOND;
}

/** How many files a process that we start may have open at most. */
export function openFilesMost(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return hard === "unlimited" ? Number.POSITIVE_INFINITY : Number(hard);
}

export interface Memory {
  /** Resident now. */
  readonly rssBytes: number;
  /** The most that was resident since the start or the last `resetPeak`. */
  readonly peakBytes: number;
}

export function memory(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kilobytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
  return { rssBytes: kilobytes("VmRSS") * 1024, peakBytes: kilobytes("VmHWM") * 1024 };
}

/** Starts the measuring of the peak anew from what is resident now. */
export function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}
