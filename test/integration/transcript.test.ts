/**
 * The same tape of commands, played to a redis-server directly and through the proxy: every reply must be
 * equal
 * byte for byte. Both times it is the same server, emptied in between, because the order of sets and cursors
 * depends on the process.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FrameSocket } from "../support/frames.ts";
import { type ProxyProcess, startProxy } from "../support/proxy.ts";
import { losesWrongLogins, NEWER_CLIENT_FIELDS, type RedisServer, startRedis } from "../support/redis.ts";
import { type Argument, encodeCommand } from "../support/resp.ts";
import { startWorkload } from "../support/workload.ts";

/** One step: a command as words, or bytes as they are, and how many replies it gets. */
interface Step {
  readonly name: string;
  readonly bytes: Buffer;
  readonly replies: number;
  /** The connection is closed behind the reply. */
  readonly closes: boolean;
}

/** Played on one connection of its own. */
interface Section {
  readonly name: string;
  readonly steps: readonly Step[];
}

/** Words separated by blanks; an argument with blanks is given as an array. */
function cmd(line: string | readonly Argument[], replies = 1): Step {
  const args = typeof line === "string" ? line.split(" ") : line;
  const name = args.map((arg) => (typeof arg === "object" ? `<${arg.length} bytes>` : String(arg))).join(" ");
  return {
    name: name.length > 100 ? `${name.slice(0, 100)}…` : name,
    bytes: encodeCommand(args),
    replies,
    closes: false,
  };
}

function raw(text: string, replies = 1): Step {
  const name = JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
  return { name, bytes: Buffer.from(text, "latin1"), replies, closes: false };
}

function all(text: string): Step[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .map((line) => cmd(line));
}

const LOSES_LOGINS = losesWrongLogins();

const BINARY = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

const TAPE: readonly Section[] = [
  {
    name: "strings",
    steps: [
      ...all(`
        SET s hello
        GET s
        GET nothing
        SET s world NX
        SET s world XX GET
        SET new x GET
        GETSET s again
        APPEND s !!
        STRLEN s
        GETRANGE s 1 -2
        SETRANGE s 2 XX
        SETRANGE s -1 x
        SUBSTR s 0 1
        INCR n
        INCRBY n 41
        DECR n
        DECRBY n 10
        INCRBYFLOAT n 0.5
        INCRBYFLOAT n abc
        INCR s
        SET max 9223372036854775807
        INCR max
        INCRBY n 99999999999999999999
        MSET a 1 b 2 c 3
        MGET a b c nothing
        MSETNX a 1 z 2
        MSET a
        SETNX a 2
        GETDEL a
        GETDEL a
        GETEX b
        GETEX b PERSIST EX 10
        LCS b c
        LCS b c LEN
        LCS b c IDX
        EXISTS a b c
        TYPE b
        DEL b c nothing
        UNLINK n
        TOUCH s new
        DUMP nothing
        COPY s s2
        RENAME s2 s3
        RENAME nothing x
        RENAMENX s3 s
        OBJECT ENCODING s3
        OBJECT REFCOUNT s3
        OBJECT ENCODING nothing
        OBJECT HELP
        OBJECT NOSUCH s3
        RANDOMKEY x
        DBSIZE
      `),
      cmd(["SET", "", "empty key"]),
      cmd(["GET", ""]),
      cmd(["SET", "empty", ""]),
      cmd(["GET", "empty"]),
      cmd(["SET", "binary", BINARY]),
      cmd(["GET", "binary"]),
      cmd(["SET", BINARY, "binary key"]),
      cmd(["GET", BINARY]),
      cmd(["SET", "crlf", "a\r\nb\r\n$5\r\n"]),
      cmd(["GET", "crlf"]),
      cmd(["SET", "large", "x".repeat(100_000)]),
      cmd(["STRLEN", "large"]),
      cmd(["GET", "large"]),
      cmd(["SET", "huge", Buffer.alloc(3_000_000, "abcdefg")]),
      cmd(["GET", "huge"]),
      cmd(["MGET", "huge", "large", "s", "nothing"]),
    ],
  },
  {
    name: "lists",
    steps: all(`
      RPUSH l a b c d e
      LPUSH l z
      LPUSHX nothing a
      RPUSHX l f
      LRANGE l 0 -1
      LRANGE l 5 1
      LRANGE l a b
      LLEN l
      LLEN nothing
      LINDEX l 0
      LINDEX l 99
      LSET l 0 first
      LSET l 99 x
      LSET nothing 0 x
      LINSERT l BEFORE a x
      LINSERT l BETWEEN a x
      LPOS l a
      LPOS l a COUNT 0
      LREM l 0 x
      LTRIM l 0 3
      LPOP l
      LPOP l 2
      LPOP nothing 2
      LPOP l -1
      RPOP nothing
      RPUSH l2 1 2 3
      RPOPLPUSH l2 l3
      LMOVE l2 l3 LEFT RIGHT
      LMPOP 2 l l3 LEFT COUNT 2
      LMPOP 0 l LEFT
      BLPOP l2 1
      BLPOP nothing 0.01
      BRPOP nothing 0.01
      BLPOP nothing -1
      BLPOP nothing abc
      BLMOVE l3 l2 LEFT LEFT 0.01
      BLMOVE nothing l2 LEFT LEFT 0.01
      BRPOPLPUSH nothing l2 0.01
      BLMPOP 0.01 1 nothing LEFT
      SORT l2
      RPUSH nums 3 1 2
      SORT nums DESC
      SORT nums ALPHA LIMIT 0 2
      SORT nums STORE sorted
      SORT_RO nums
      SORT l3 BY w_* GET # GET v_*
      RPUSH words pear apple
      SORT words
      SORT words ALPHA
      OBJECT ENCODING nums
    `),
  },
  {
    name: "hashes",
    steps: all(`
      HSET h f v g w
      HSET h f
      HGET h f
      HGET h nothing
      HGET nothing f
      HMGET h f nothing g
      HGETALL h
      HGETALL nothing
      HKEYS h
      HVALS h
      HLEN h
      HEXISTS h f
      HEXISTS h nothing
      HDEL h g nothing
      HSETNX h f x
      HINCRBY h n 5
      HINCRBY h f 5
      HINCRBYFLOAT h n 1.5
      HSTRLEN h f
      HMSET h a 1 b 2
      HRANDFIELD nothing
      HRANDFIELD nothing 5
      HSET one f v
      HRANDFIELD one
      HRANDFIELD one 1 WITHVALUES
      HSCAN h 0
      HSCAN h 0 MATCH a* COUNT 100
      HSCAN nothing 0
      HSCAN h abc
      OBJECT ENCODING h
    `),
  },
  {
    name: "sets",
    steps: all(`
      SADD s 1 2 3
      SADD s 3 4
      SADD t 3 4 5
      SCARD s
      SMEMBERS s
      SMEMBERS nothing
      SISMEMBER s 1
      SISMEMBER s 9
      SMISMEMBER s 1 9 2
      SINTER s t
      SINTER s nothing
      SUNION s t
      SDIFF s t
      SINTERCARD 2 s t
      SINTERCARD 2 s t LIMIT 1
      SINTERCARD 0 s
      SINTERSTORE d s t
      SUNIONSTORE d s t
      SDIFFSTORE d s t
      SMOVE s t 1
      SREM s 2 9
      SPOP nothing
      SPOP nothing 3
      SADD one x
      SRANDMEMBER one
      SRANDMEMBER one 5
      SRANDMEMBER one -3
      SPOP one
      SSCAN t 0
      SSCAN nothing 0
      OBJECT ENCODING t
    `),
  },
  {
    name: "sorted sets",
    steps: all(`
      ZADD z 1 a 2 b 3.5 c
      ZADD z NX 9 a
      ZADD z XX CH 4 a
      ZADD z GT CH 1 a
      ZADD z INCR 2 a
      ZADD z NX XX 1 a
      ZADD z abc a
      ZADD inf inf x -inf y 1e300 w 0.1 v
      ZRANGE inf 0 -1 WITHSCORES
      ZCARD z
      ZSCORE z c
      ZSCORE z nothing
      ZMSCORE z a nothing c
      ZINCRBY z 1.25 b
      ZRANK z c
      ZRANK z nothing
      ZREVRANK z c
      ZRANGE z 0 -1
      ZRANGE z 0 -1 WITHSCORES
      ZRANGE z 0 -1 REV
      ZRANGE z (1 +inf BYSCORE LIMIT 0 2
      ZRANGE z a b BYSCORE
      ZREVRANGE z 0 1 WITHSCORES
      ZRANGEBYSCORE z -inf +inf WITHSCORES
      ZREVRANGEBYSCORE z +inf -inf LIMIT 0 1
      ZADD lex 0 a 0 b 0 c
      ZRANGEBYLEX lex [a (c
      ZREVRANGEBYLEX lex + -
      ZLEXCOUNT lex - +
      ZCOUNT z 1 3
      ZREM z nothing
      ZREMRANGEBYLEX lex [a [a
      ZREMRANGEBYRANK lex 0 0
      ZREMRANGEBYSCORE lex 5 6
      ZADD y 1 a 5 q
      ZUNION 2 z y WITHSCORES
      ZINTER 2 z y WITHSCORES
      ZDIFF 2 z y WITHSCORES
      ZUNIONSTORE u 2 z y WEIGHTS 2 3 AGGREGATE MAX
      ZINTERSTORE u 2 z y
      ZDIFFSTORE u 2 z y
      ZINTERCARD 2 z y
      ZRANGESTORE u z 0 1
      ZPOPMIN z
      ZPOPMAX z 2
      ZPOPMIN nothing
      ZMPOP 1 y MIN COUNT 1
      BZPOPMIN y 0.01
      BZPOPMAX nothing 0.01
      BZMPOP 0.01 1 nothing MIN
      ZADD single 7 only
      ZRANDMEMBER single
      ZRANDMEMBER single 2 WITHSCORES
      ZSCAN single 0
    `),
  },
  {
    name: "streams",
    steps: all(`
      XADD x 1-1 f v
      XADD x 1-2 f v g w
      XADD x 1-1 f v
      XADD x 0-0 f v
      XADD x 2-* f v
      XADD x NOMKSTREAM 3-1 f v
      XADD nothing NOMKSTREAM 3-1 f v
      XADD x MAXLEN = 3 4-0 f v
      XLEN x
      XRANGE x - +
      XRANGE x - + COUNT 1
      XREVRANGE x + -
      XREAD COUNT 2 STREAMS x 0
      XREAD STREAMS x 99
      XREAD BLOCK 10 STREAMS x 99
      XREAD BLOCK 10 STREAMS x 0
      XREAD STREAMS x
      XGROUP CREATE x g 0
      XGROUP CREATE x g 0
      XGROUP CREATE nothing g 0
      XGROUP NOSUCH x g
      XREADGROUP GROUP g c COUNT 1 STREAMS x >
      XREADGROUP GROUP g c BLOCK 10 COUNT 1 STREAMS x >
      XREADGROUP GROUP nosuch c STREAMS x >
      XPENDING x g
      XACK x g 1-2 9-9
      XCLAIM x g d 0 2-0 JUSTID
      XAUTOCLAIM x g d 0 0 JUSTID
      XINFO GROUPS x
      XINFO HELP
      XINFO STREAM nothing
      XDEL x 1-2 9-9
      XTRIM x MAXLEN 1
      XSETID x 9-0
      XGROUP DESTROY x g
    `),
  },
  {
    name: "bitmaps, geo and hyperloglogs",
    steps: all(`
      SETBIT b 7 1
      SETBIT b 7 2
      SETBIT b -1 1
      GETBIT b 7
      BITCOUNT b
      BITCOUNT b 0 -1 BIT
      BITPOS b 1
      BITOP NOT c b
      BITOP AND d b c
      BITOP XYZ d b c
      BITFIELD b SET u8 0 200 GET u8 0 INCRBY u8 0 100 OVERFLOW FAIL INCRBY u8 0 250
      BITFIELD_RO b GET u4 0
      BITFIELD_RO b SET u4 0 1
      GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
      GEOADD g 999 999 Nowhere
      GEODIST g Palermo Catania km
      GEODIST g Palermo Nowhere
      GEOHASH g Palermo Nowhere
      GEOPOS g Palermo Nowhere
      GEORADIUS g 15 37 200 km WITHDIST WITHCOORD ASC
      GEORADIUS_RO g 15 37 200 km ASC
      GEORADIUSBYMEMBER g Palermo 500 km STORE near
      GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH
      GEOSEARCHSTORE near g FROMMEMBER Palermo BYBOX 400 400 km
      PFADD p a b c
      PFADD p a
      PFCOUNT p
      PFADD q c d
      PFMERGE r p q
      PFCOUNT p q
      SET notpf x
      PFADD notpf a
    `),
  },
  {
    name: "expiry at fixed times",
    steps: all(`
      SET k v EXAT 4102444800
      EXPIRETIME k
      PEXPIRETIME k
      PERSIST k
      PERSIST k
      TTL k
      TTL nothing
      PTTL nothing
      EXPIREAT k 4102444800
      EXPIREAT k 4102444800 NX
      EXPIREAT k 4202444800 GT
      EXPIREAT k 1 LT XX
      GET k
      SET k v PXAT 4102444800000 GET
      PEXPIREAT k 4102444800123
      PEXPIRETIME k
      SETEX k 0 v
      PSETEX k -1 v
      SET k v EX abc
      SET k v EX 10 PX 10
      EXPIRE k abc
      EXPIRE nothing 10
      EXPIRE k -1
      EXISTS k
      GETEX nothing EXAT 4102444800
    `),
  },
  {
    name: "wrong types, wrong numbers of arguments, unknown commands",
    steps: [
      ...all(`
        SET s x
        LPUSH s a
        HGET s f
        SADD s a
        ZADD s 1 a
        XADD s * f v
        INCRBYFLOAT s 1
        GETBIT s abc
        RPUSH l a
        GET l
        APPEND l x
        SETRANGE l 0 x
        SMEMBERS l
        GET
        GET a b
        SET a
        SET a b c
        SET a b NX XX
        get s
        GeT s
        LPUSH l
        HMSET h f
        ECHO
        ECHO a b
        PING a b
        SELECT
        SELECT 1 2
        MULTI x
        DISCARD x
        AUTH
        TYPE
        DBSIZE x
        QUITE
        NOSUCHCOMMAND
        NOSUCHCOMMAND a b c
        OBJECT
        OBJECT ENCODING
        XGROUP
        CONFIG
        CONFIG NOSUCH
        CONFIG GET
        CLIENT
        COMMAND NOSUCH
        SCRIPT
        SCRIPT NOSUCH
        FUNCTION NOSUCH
        MEMORY NOSUCH
        LATENCY NOSUCH
        ACL NOSUCH
        SLOWLOG NOSUCH
        CLUSTER INFO
        READONLY
        READWRITE
        ASKING
        DEBUG NOSUCH
      `),
      cmd(["no such\r\ncommand", "with\r\nlines"]),
      cmd(["NOSUCH", "x".repeat(300), "y".repeat(300)]),
      cmd(["N".repeat(300), "x"]),
      cmd([BINARY, BINARY]),
      cmd([""]),
      cmd(["", "x"]),
      cmd("GET s"),
    ],
  },
  {
    name: "transactions",
    steps: [
      ...all(`
        MULTI
        SET a 1
        INCR a
        GET a
        EXEC
        MULTI
        EXEC
        MULTI
        SET a 5
        DISCARD
        GET a
        EXEC
        DISCARD
        MULTI
        MULTI
        SET b 1
        EXEC
        MULTI
        SET a
        SET b 2
        EXEC
        GET b
        MULTI
        NOSUCHCOMMAND x y
        SET b 3
        EXEC
        GET b
        MULTI
        INCR a
        LPUSH a x
        INCR a
        EXEC
        MULTI
        NOSUCHCOMMAND
        DISCARD
        MULTI
        WATCH a
        SET a 7
        EXEC
        GET a
        MULTI
        PING
        ECHO hello
        TYPE a
        HGETALL nothing
        LRANGE nothing 0 -1
        GET nothing
        EVAL return{1,2} 0
        BLPOP nothing 0
        XREAD BLOCK 0 STREAMS nothing 0
        UNWATCH
        OBJECT ENCODING a
        COMMAND COUNT
        EXEC
        MULTI
        EVALSHA 0000000000000000000000000000000000000000 0
        EXEC
        MULTI x
        EXEC
        MULTI
        EXEC x
        EXEC
        MULTI
        DISCARD x
        SET a 8
        EXEC
        MULTI
        CONFIG NOSUCH
        SET a 9
        EXEC
        MULTI
        OBJECT ENCODING
        EXEC
        GET a
        WATCH a
        MULTI
        INCR a
        EXEC
        WATCH a b
        UNWATCH
        WATCH a
        SET a 10
        MULTI
        GET a
        EXEC
        WATCH a
        MULTI
        DISCARD
        WATCH
        UNWATCH
        UNWATCH x
        MULTI
        SET a 1
        QUITE
        RESET
        EXEC
        GET a
      `),
    ],
  },
  {
    name: "a transaction left by QUIT",
    steps: [cmd("MULTI"), cmd("SET left x"), { ...cmd("QUIT"), closes: true }],
  },
  {
    name: "a transaction left by QUIT did nothing",
    steps: [cmd("GET left")],
  },
  {
    name: "databases",
    steps: all(`
      SET where zero
      SELECT 1
      GET where
      SET where one
      SELECT 0
      GET where
      SELECT 01
      SELECT abc
      SELECT -1
      SELECT 16
      SELECT 99999
      SELECT 99999999999999999999
      GET where
      SELECT 15
      DBSIZE
      SELECT 1
      MOVE where 2
      MOVE where 1
      MOVE where 99
      SELECT 2
      GET where
      SWAPDB 2 3
      GET where
      SWAPDB a b
      COPY where where DB 4
      SELECT 0
      DBSIZE
      RESET
      GET where
    `),
  },
  {
    name: "HELLO",
    steps: all(`
      HELLO
      HELLO 2
      HELLO 3
      HGETALL nothing
      HELLO 2
      HGETALL nothing
      HELLO 3
      GET nothing
      HELLO 1
      HELLO 4
      HELLO abc
      HELLO -3
      HELLO 3 NOSUCH
      HELLO 3 AUTH
      HELLO 3 AUTH a
      HELLO 3 SETNAME
      HELLO 3 AUTH default anything
      HELLO 3 AUTH nosuchuser anything
      HELLO 3 AUTH nosuchuser anything SETNAME n
      CLIENT GETNAME
      HELLO 3 SETNAME name-by-hello
      CLIENT GETNAME
      HELLO 2 SETNAME other AUTH default x
      CLIENT GETNAME
      AUTH x
      AUTH default x
      AUTH nosuchuser x
      AUTH a b c
      HELLO 3
      RESET
      GET nothing
      CLIENT GETNAME
    `),
  },
  {
    name: "HELLO with a name that is not allowed",
    steps: [
      cmd(["HELLO", "3", "SETNAME", "a b"]),
      cmd(["HELLO", "2", "SETNAME", "a\nb"]),
      cmd("CLIENT GETNAME"),
    ],
  },
  {
    name: "CLIENT",
    steps: [
      ...all(`
        CLIENT GETNAME
        CLIENT SETNAME name
        CLIENT GETNAME
        CLIENT SETNAME
        CLIENT SETNAME a b
        CLIENT GETNAME x
        CLIENT ID x
        client getname
        CLIENT SETINFO LIB-NAME x
        CLIENT SETINFO LIB-VER 1.0
        CLIENT ID
        CLIENT NOSUCH
        CLIENT INFO
        CLIENT HELP
        CLIENT NO-EVICT ON
        CLIENT GETREDIR
        CLIENT TRACKINGINFO
        CLIENT REPLY ON
        CLIENT UNPAUSE
      `),
      cmd(["CLIENT", "SETNAME", "a b"]),
      cmd(["CLIENT", "SETNAME", "a\r\nb"]),
      cmd(["CLIENT", "SETNAME", ""]),
      cmd("CLIENT GETNAME"),
      cmd("RESET"),
    ],
  },
  {
    name: "PING and ECHO",
    steps: [
      ...all(`
        PING
        PING hello
        ping
        ECHO hello
      `),
      cmd(["PING", BINARY]),
      cmd(["ECHO", BINARY]),
      cmd(["ECHO", ""]),
      cmd(["PING", ""]),
      cmd(["ECHO", "x".repeat(70_000)]),
    ],
  },
  {
    name: "inline commands",
    steps: [
      raw("PING\r\n"),
      raw("PING\n"),
      raw("  PING   hello  \r\n"),
      raw("SET inline value\r\n"),
      raw("get inline\r\n"),
      raw('SET "quoted key" "a \\"b\\" \\x41\\n"\r\n'),
      raw("GET 'quoted key'\r\n"),
      raw("SET single 'it\\'s'\r\n"),
      raw("GET single\r\n"),
      raw('ECHO ""\r\n'),
      raw("\r\n\r\n  \r\n*0\r\nPING\r\n"),
      raw("*-1\r\nPING\r\n"),
      raw("\tPING\tx\r\n"),
      raw("NOSUCH a b\r\n"),
      raw("GET\r\n"),
      raw("MULTI\r\n"),
      raw("INCR inline-n\r\n"),
      raw("EXEC\r\n"),
      raw("SELECT 1\r\n"),
      raw("HELLO 3\r\n"),
      raw("RESET\r\n"),
      raw("PING\r\n*1\r\n$4\r\nPING\r\nPING again\r\n", 3),
    ],
  },
  {
    name: "scripts and functions",
    steps: [
      ...all(`
        EVAL return{1,2,{3}} 0
        EVAL return{KEYS[1],ARGV[1]} 1 k a
        EVAL return{ok='fine'} 0
        EVAL return{err='BROKEN_it'} 0
        EVAL return(nil) 0
        EVAL return(3.99) 0
        EVAL return(true) 0
        EVAL return(false) 0
        EVAL return{double=3.5} 0
        EVAL return(redis.call('set',KEYS[1],'v')) 1 sk
        EVAL return(redis.call('get',KEYS[1])) 1 sk
        EVAL return(redis.call('nosuch')) 0
        EVAL return(redis.call('lpush',KEYS[1],'v')) 1 sk
        EVAL syntax( 0
        EVAL return(1) abc
        EVAL return(1) 5
        EVAL return(1) -1
        EVAL_RO return(redis.call('get',KEYS[1])) 1 sk
        EVAL_RO return(redis.call('set',KEYS[1],'x')) 1 sk
        SCRIPT LOAD return(42)
        SCRIPT EXISTS 0000000000000000000000000000000000000000
        EVALSHA 0000000000000000000000000000000000000000 0
        EVALSHA_RO 0000000000000000000000000000000000000000 0
        SCRIPT FLUSH NOSUCH
        SCRIPT KILL
        SCRIPT HELP
        FUNCTION LIST
        FCALL nosuch 0
      `),
      cmd(["EVAL", "redis.setresp(3) return redis.call('hgetall', KEYS[1])", "1", "nothing"]),
      cmd([
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function(k, a) return a[1] end)",
      ]),
      cmd([
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function(k, a) return a[1] end)",
      ]),
      cmd("FCALL f 0 hello"),
      cmd("FCALL_RO f 0 hello"),
      cmd("FUNCTION DELETE lib"),
    ],
  },
  {
    name: "the keyspace",
    steps: all(`
      FLUSHALL
      MSET k1 1 k2 2
      SCAN 0 COUNT 100
      SCAN 0 MATCH nothing* COUNT 100
      SCAN 0 TYPE hash COUNT 100
      SCAN abc
      SCAN 0 COUNT 0
      KEYS nothing*
      KEYS k1
      RANDOMKEY x
      DBSIZE
      OBJECT FREQ k1
      MEMORY USAGE nothing
      FLUSHDB
      FLUSHDB ASYNC
      FLUSHALL SYNC
      FLUSHALL NOSUCH
      DBSIZE
      RANDOMKEY
    `),
  },
  {
    name: "the server",
    steps: all(`
      COMMAND COUNT
      COMMAND INFO get set nosuch
      COMMAND GETKEYS MSET a 1 b 2
      COMMAND LIST FILTERBY PATTERN xre*
      COMMAND DOCS get
      CONFIG GET maxmemory
      CONFIG GET nosuch*
      LATENCY HELP
      SLOWLOG HELP
      MODULE LIST
      ACL WHOAMI
      ACL CAT
      ACL USERS
      PUBLISH channel message
      PUBSUB NUMSUB channel
      PUBSUB CHANNELS nosuch*
      PUBSUB NUMPAT
      MEMORY DOCTOR x
      LOLWUT VERSION 1 0 0 0
      INFO nosuchsection
      WAIT 0 0
      ROLE x
      LASTSAVE x
      TIME x
      DEBUG JMAP x
    `),
  },
  {
    name: "transactions about the session itself",
    steps: [
      ...all(`
        SELECT 2
        SET a two
        SELECT 0
        MULTI
        SELECT 2
        GET a
        EXEC
        GET a
        MULTI
        SELECT 5
        SELECT 99
        SELECT abc
        SELECT -1
        SET five 5
        EXEC
        GET five
        MULTI
        SELECT 0
        SELECT
        EXEC
        GET five
        MULTI
        SELECT 0
        DISCARD
        GET five
        SELECT 0
        SELECT 2147483648
        SELECT -2147483648
        SELECT -2147483649
        MULTI
        CLIENT GETNAME
        CLIENT SETNAME one
        LRANGE nothing 0 -1
        CLIENT GETNAME
        SET b 1
        EXEC
        CLIENT GETNAME
      `),
      cmd("MULTI"),
      cmd(["CLIENT", "SETNAME", "a b"]),
      cmd(["CLIENT", "SETNAME", ""]),
      ...all(`
        CLIENT GETNAME
        MONITOR
        SSUBSCRIBE x
        EXEC
        CLIENT GETNAME
        MULTI
        CLIENT SETNAME two
        CLIENT NOSUCH
        CLIENT SETNAME
        CLIENT
        EXEC
        CLIENT GETNAME
        MULTI
        CLIENT SETNAME two
        DISCARD
        CLIENT GETNAME
        WATCH w
        SET w 1
        MULTI
        SELECT 4
        CLIENT SETNAME two
        EXEC
        CLIENT GETNAME
        WATCH w
        MULTI
        SELECT 4
        CLIENT SETNAME two
        SET w 4
        EXEC
        GET w
        CLIENT GETNAME
        SELECT 0
        GET w
        MULTI
        SHUTDOWN
        EXEC
        MULTI
        SAVE
        EXEC
        MULTI
        SYNC
        PSYNC ? -1
        EXEC
      `),
    ],
  },
  {
    name: "logging in inside MULTI",
    steps: all(`
      ACL SETUSER member on >secret +@all ~* &*
      MULTI
      AUTH member wrong
      ACL WHOAMI
      EXEC
      ACL WHOAMI
      MULTI
      AUTH member secret
      ACL WHOAMI
      EXEC
      ACL WHOAMI
      MULTI
      AUTH a b c
      EXEC
      MULTI
      AUTH
      EXEC
      MULTI
      HELLO 4
      HELLO 3 AUTH member wrong
      HELLO 3 NOSUCH
      EXEC
      GET nothing
      MULTI
      HELLO 3 AUTH member secret SETNAME three
      GET nothing
      CLIENT GETNAME
      SELECT 1
      EXEC
      GET nothing
      CLIENT GETNAME
      ACL WHOAMI
      HELLO 2
      MULTI
      HELLO
      EXEC
      GET nothing
    `),
  },
  {
    name: "logging in while keys are watched",
    steps: all(`
      ACL SETUSER member on >secret +@all ~* &*
      WATCH w
      AUTH member secret
      ACL WHOAMI
      MULTI
      ACL WHOAMI
      EXEC
      ACL WHOAMI
      WATCH w
      AUTH default nothing
      SET w 1
      MULTI
      ACL WHOAMI
      EXEC
      ACL WHOAMI
      WATCH w
      AUTH member wrong
      ACL WHOAMI
      MULTI
      ACL WHOAMI
      EXEC
      WATCH w
      HELLO 3 AUTH member secret SETNAME four
      GET nothing
      SET w 2
      MULTI
      ACL WHOAMI
      EXEC
      GET nothing
      CLIENT GETNAME
      WATCH w
      HELLO 2
      GET nothing
      HELLO 3
      GET nothing
      SELECT 3
      SET w 3
      MULTI
      GET w
      EXEC
      HELLO 2 AUTH member wrong
      GET nothing
    `),
  },
  {
    name: "subscriptions",
    steps: [
      cmd("SUBSCRIBE a b", 2),
      cmd("SUBSCRIBE a"),
      cmd("PSUBSCRIBE p*"),
      cmd("PING"),
      cmd("PING hello"),
      cmd("UNSUBSCRIBE b"),
      cmd("UNSUBSCRIBE nosuch"),
      cmd("UNSUBSCRIBE"),
      cmd("PUNSUBSCRIBE"),
      cmd("SSUBSCRIBE s"),
      cmd("SUNSUBSCRIBE"),
      cmd("RESET"),
      cmd("GET nothing"),
      cmd("SUBSCRIBE"),
    ],
  },
  {
    name: "RESP2 subscribers may not do anything else",
    steps: [cmd("HELLO 2"), cmd("SUBSCRIBE a"), cmd("GET s"), cmd("UNSUBSCRIBE"), cmd("GET s")],
  },
  {
    name: "RESP3 subscribers may go on with everything",
    steps: [
      cmd("HELLO 3"),
      cmd("SUBSCRIBE a b", 2),
      cmd("SET s 1"),
      cmd("CLIENT GETNAME"),
      cmd("GET s"),
      cmd("SELECT 0"),
      cmd("INCR s"),
      cmd("UNSUBSCRIBE a b", 2),
      cmd("CLIENT GETNAME"),
      cmd("INCR s"),
      cmd("SELECT 1"),
      cmd("GET s"),
    ],
  },
  { name: "a subscriber's QUIT", steps: [cmd("SUBSCRIBE a b", 2), { ...cmd("QUIT"), closes: true }] },
  { name: "QUIT", steps: [cmd("SET q 1"), { ...cmd("QUIT"), closes: true }] },
  { name: "inline QUIT", steps: [{ ...raw("QUIT\r\n"), closes: true }] },
];

interface Difference {
  readonly why: string;
  /** Whether this difference is the one that is meant; replies as text. */
  readonly isMeant: (proxied: string, direct: string) => boolean;
  /** The replies may also be equal. */
  readonly mayBeEqual?: boolean;
}

/** Everything that a client sees otherwise than from Redis, by section and step. Nothing else may differ. */
const DIFFERENCES: Readonly<Record<string, Difference>> = {
  ...everyOf("HELLO", "HELLO", isGreeting, "the client's id is the proxy's"),
  ...everyOf("inline commands", '"HELLO 3', isGreeting, "the client's id is the proxy's"),
  ...everyOf(
    "RESP2 subscribers may not do anything else",
    "HELLO 2",
    isGreeting,
    "the client's id is the proxy's",
  ),
  "CLIENT: CLIENT ID": {
    why: "ids are the proxy's own",
    isMeant: (proxied, direct) => /^:\d+\r\n$/.test(proxied) && /^:\d+\r\n$/.test(direct),
    mayBeEqual: true,
  },
  "CLIENT: CLIENT INFO": {
    why: "numbers and addresses are the proxy's own",
    isMeant: (proxied, direct) => clientLine(proxied) === clientLine(withKnownFields(direct)),
  },
  ...ofGreetings("logging in inside MULTI", "HELLO", "EXEC"),
  ...ofGreetings("logging in while keys are watched", "HELLO"),
  ...everyOf(
    "RESP3 subscribers may go on with everything",
    "HELLO 3",
    isGreeting,
    "the client's id is the proxy's",
  ),
};

/** A line of CLIENT LIST without what differs from one connection, or one process, to the next. */
function clientLine(text: string): string {
  return text
    .replace(/^[$=]\d+\r\n/, "")
    .replace(/\b(id|fd|age|idle|qbuf|qbuf-free|[a-z]+-mem|rbs|rbp|obl|oll|omem)=\d+/g, "$1=n")
    .replace(/\b(l?addr)=127\.0\.0\.1:\d+/g, "$1=address")
    .replace("events=rw", "events=r");
}

/** Without the fields that newer servers have besides, of which the proxy tells none. */
function withKnownFields(text: string): string {
  return text.replace(NEWER_CLIENT_FIELDS, "");
}

function everyOf(section: string, prefix: string, isMeant: Difference["isMeant"], why: string) {
  const steps = TAPE.find((one) => one.name === section)?.steps ?? [];
  const differences: Record<string, Difference> = {};
  for (const { name } of steps) {
    if (name.startsWith(prefix)) differences[`${section}: ${name}`] = { why, isMeant, mayBeEqual: true };
  }
  return differences;
}

function ofGreetings(section: string, ...prefixes: readonly string[]) {
  const why = "the client's id is the proxy's";
  return Object.fromEntries(
    prefixes.flatMap((prefix) => Object.entries(everyOf(section, prefix, isGreeting, why))),
  );
}

/** Equal but for the number behind "id". */
function isGreeting(proxied: string, direct: string): boolean {
  const withoutId = (text: string) => text.replace(/(\$2\r\nid\r\n:)\d+/, "$1N");
  return withoutId(proxied) === withoutId(direct);
}

let redis: RedisServer;
let proxy: ProxyProcess;

beforeAll(async () => {
  redis = await startRedis();
  proxy = await startProxy({ nodes: [redis.address] });
});

afterAll(async () => {
  await proxy?.close();
  await redis?.close();
});

/** What one connection answered: the replies of each step, or all of them together. */
interface Transcript {
  readonly replies: readonly string[];
  readonly closed: boolean;
}

class Player {
  readonly #socket: FrameSocket;

  static async connect(port: number, protocol: 2 | 3): Promise<Player> {
    return new Player(await FrameSocket.connect(port, protocol));
  }

  private constructor(socket: FrameSocket) {
    this.#socket = socket;
  }

  /** One step after the other. */
  async stepByStep(section: Section): Promise<Transcript> {
    const replies: string[] = [];
    for (const step of section.steps) {
      await this.#socket.send(step.bytes);
      replies.push((await this.#socket.take(step.replies, step.name)).join(""));
    }
    return { replies, closed: await this.#close(section) };
  }

  /** All steps in one write, or in pieces of so many bytes. */
  async pipelined(section: Section, sliceBytes = 0): Promise<Transcript> {
    const bytes = Buffer.concat(section.steps.map((step) => step.bytes));
    const size = sliceBytes === 0 ? bytes.length : sliceBytes;
    for (let at = 0; at < bytes.length; at += size) await this.#socket.send(bytes.subarray(at, at + size));
    const replies: string[] = [];
    for (const step of section.steps) {
      replies.push((await this.#socket.take(step.replies, step.name)).join(""));
    }
    return { replies, closed: await this.#close(section) };
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #close(section: Section): Promise<boolean> {
    const mustClose = section.steps.at(-1)?.closes === true;
    if (mustClose) await this.#socket.untilEnded();
    const closed = this.#socket.ended;
    const { left } = this.#socket;
    if (left.length > 0) throw new Error(`replies nobody asked for: ${left.join("")}`);
    return closed;
  }
}

type Play = (player: Player, section: Section) => Promise<Transcript>;

async function compare(section: Section, protocol: 2 | 3, play: Play): Promise<string[]> {
  let direct: Transcript;
  let proxied: Transcript;
  try {
    direct = await record(redis.port, section, protocol, play);
    proxied = await record(proxy.port, section, protocol, play);
  } catch (error) {
    return [`${section.name}: ${(error as Error).message}`];
  }
  const problems: string[] = [];
  for (const [index, step] of section.steps.entries()) {
    const name = `${section.name}: ${step.name}`;
    const told = (direct.replies[index] ?? "").replace(...WITHOUT_NAME);
    const problem = judge(name, proxied.replies[index] ?? "", told);
    if (problem !== null) problems.push(problem);
  }
  if (direct.closed !== proxied.closed) {
    problems.push(`${section.name}: closed directly ${direct.closed}, through the proxy ${proxied.closed}`);
  }
  return problems;
}

async function record(port: number, section: Section, protocol: 2 | 3, play: Play): Promise<Transcript> {
  await empty();
  await prepare(section);
  const player = await Player.connect(port, protocol);
  try {
    return await play(player, section);
  } finally {
    player.destroy();
  }
}

async function empty(): Promise<void> {
  await redis.cli("FLUSHALL");
  await redis.cli("SCRIPT", "FLUSH");
  await redis.cli("FUNCTION", "FLUSH");
}

/** Sections that look at what another has left. */
async function prepare(section: Section): Promise<void> {
  if (section.name.startsWith("RESP2 subscribers")) await redis.cli("SET", "s", "x");
}

/** Valkey 9.1 names the command there. */
const WITHOUT_NAME = [
  /^-ERR Command '[^']+' not allowed inside a transaction\r\n$/,
  "-ERR Command not allowed inside a transaction\r\n",
] as const;

function judge(name: string, proxied: string, direct: string): string | null {
  const difference = DIFFERENCES[name];
  const show = (text: string) => JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text);
  if (difference === undefined) {
    return proxied === direct
      ? null
      : `${name}\n   through the proxy ${show(proxied)}\n   directly          ${show(direct)}`;
  }
  if (proxied === direct)
    return difference.mayBeEqual ? null : `${name} does not differ any more: take it from the table`;
  return difference.isMeant(proxied, direct)
    ? null
    : `${name} (${difference.why}) differs otherwise: ${show(proxied)}, directly ${show(direct)}`;
}

describe.each([2, 3] as const)("RESP%i: through the proxy and directly, byte for byte", (protocol) => {
  it.each(TAPE.filter(isPlayed))("$name: the replies are Redis's own", async (section) => {
    const problems = await compare(section, protocol, (player, tape) => player.stepByStep(tape));
    expect(problems.join("\n")).toBe("");
  });

  it("in one write per section: the replies are Redis's own, in order [15]", async () => {
    const problems: string[] = [];
    for (const section of TAPE.filter(isPipelinable)) {
      problems.push(...(await compare(section, protocol, (player, tape) => player.pipelined(tape))));
    }
    expect(problems.join("\n")).toBe("");
  });

  it("in pieces of 7 bytes: the replies are Redis's own", async () => {
    const problems: string[] = [];
    const small = TAPE.filter((section) => isPipelinable(section) && sizeOf(section) < 20_000);
    expect(small.length).toBeGreaterThan(10);
    for (const section of small) {
      problems.push(...(await compare(section, protocol, (player, tape) => player.pipelined(tape, 7))));
    }
    expect(problems.join("\n")).toBe("");
  });
});

it("WATCH … EXEC again and again in one write neither hangs nor aborts, whatever else the proxy has to do [15]", async () => {
  await empty();
  const busy = await startWorkload({ port: proxy.port, paceMs: 0 });
  const rounds = 20;
  const unit = [["WATCH", "w"], ["MULTI"], ["INCR", "w"], ["EXEC"], ["WATCH", "w"], ["MULTI"], ["DISCARD"]];
  const client = await proxy.connect({ deadlineMs: 3_000 });
  try {
    for (let batch = 0; batch < 10; batch++) {
      const replies = await client.pipeline(Array.from({ length: rounds }, () => unit).flat());
      for (let round = 0; round < rounds; round++) {
        const expected = ["OK", "OK", "QUEUED", [batch * rounds + round + 1], "OK", "OK", "OK"];
        expect(replies.slice(round * unit.length, (round + 1) * unit.length)).toEqual(expected);
      }
    }
  } finally {
    client.close();
    await busy.stop();
  }
});

it("the tape has several hundred steps, and every listed difference is on it", () => {
  const names = new Set(
    TAPE.flatMap((section) => section.steps.map((step) => `${section.name}: ${step.name}`)),
  );
  expect(names.size).toBeGreaterThan(400);
  for (const name of Object.keys(DIFFERENCES)) expect(names).toContain(name);
});

/**
 * Redis refuses what it finds behind RESET or UNSUBSCRIBE in one read by the mode it is in by then: no
 * difference.
 */
function isPipelinable(section: Section): boolean {
  const losesLogins = LOSES_LOGINS && section.steps.some(({ name }) => /\bAUTH\b/.test(name));
  return section.steps.length > 1 && !losesLogins;
}

/** Such a server never ends the reply to EXEC; the proxy refuses the login within the transaction. */
function isPlayed({ name }: Section): boolean {
  return !LOSES_LOGINS || name !== "logging in inside MULTI";
}

function sizeOf(section: Section): number {
  return section.steps.reduce((sum, step) => sum + step.bytes.length, 0);
}
