/**
 * The commands of Redis 7.0 as its COMMAND lists them: "name arity flags", flags being w (writes), r (only
 * reads) and b (may block). Used until a server of the group has told its own table.
 */
export const BUILTIN_COMMANDS = `
acl -2, append 3 w, asking 1, auth -2, bgrewriteaof 1, bgsave -1, bitcount -2 r, bitfield -2 w,
bitfield_ro -2 r, bitop -4 w, bitpos -3 r, blmove 6 wb, blmpop -5 wb, blpop -3 wb, brpop -3 wb,
brpoplpush 4 wb, bzmpop -5 wb, bzpopmax -3 wb, bzpopmin -3 wb, client -2, cluster -2, command -1,
config -2, copy -3 w, dbsize 1 r, debug -2, decr 2 w, decrby 3 w, del -2 w, discard 1, dump 2 r, echo 2,
eval -3, eval_ro -3 r, evalsha -3, evalsha_ro -3 r, exec 1, exists -2 r, expire -3 w, expireat -3 w,
expiretime 2 r, failover -1, fcall -3, fcall_ro -3 r, flushall -1 w, flushdb -1 w, function -2 w,
geoadd -5 w, geodist -4 r, geohash -2 r, geopos -2 r, georadius -6 w, georadius_ro -6 r,
georadiusbymember -5 w, georadiusbymember_ro -5 r, geosearch -7 r, geosearchstore -8 w, get 2 r,
getbit 3 r, getdel 2 w, getex -2 w, getrange 4 r, getset 3 w, hdel -3 w, hello -1, hexists 3 r, hget 3 r,
hgetall 2 r, hincrby 4 w, hincrbyfloat 4 w, hkeys 2 r, hlen 2 r, hmget -3 r, hmset -4 w, hrandfield -2 r,
hscan -3 r, hset -4 w, hsetnx 4 w, hstrlen 3 r, hvals 2 r, incr 2 w, incrby 3 w, incrbyfloat 3 w,
info -1, keys 2 r, lastsave 1, latency -2, lcs -3 r, lindex 3 r, linsert 5 w, llen 2 r, lmove 5 w,
lmpop -4 w, lolwut -1 r, lpop -2 w, lpos -3 r, lpush -3 w, lpushx -3 w, lrange 4 r, lrem 4 w, lset 4 w,
ltrim 4 w, memory -2, mget -2 r, migrate -6 w, module -2, monitor 1, move 3 w, mset -3 w, msetnx -3 w,
multi 1, object -2, persist 2 w, pexpire -3 w, pexpireat -3 w, pexpiretime 2 r, pfadd -2 w, pfcount -2 r,
pfdebug 3 w, pfmerge -2 w, pfselftest 1, ping -1, psetex 4 w, psubscribe -2, psync -3, pttl 2 r,
publish 3, pubsub -2, punsubscribe -1, quit -1, randomkey 1 r, readonly 1, readwrite 1, rename 3 w,
renamenx 3 w, replconf -1, replicaof 3, reset 1, restore -4 w, restore-asking -4 w, role 1, rpop -2 w,
rpoplpush 3 w, rpush -3 w, rpushx -3 w, sadd -3 w, save 1, scan -2 r, scard 2 r, script -2, sdiff -2 r,
sdiffstore -3 w, select 2, set -3 w, setbit 4 w, setex 4 w, setnx 3 w, setrange 4 w, shutdown -1,
sinter -2 r, sintercard -3 r, sinterstore -3 w, sismember 3 r, slaveof 3, slowlog -2, smembers 2 r,
smismember -3 r, smove 4 w, sort -2 w, sort_ro -2 r, spop -2 w, spublish 3, srandmember -2 r, srem -3 w,
sscan -3 r, ssubscribe -2, strlen 2 r, subscribe -2, substr 4 r, sunion -2 r, sunionstore -3 w,
sunsubscribe -1, swapdb 3 w, sync 1, time 1, touch -2 r, ttl 2 r, type 2 r, unlink -2 w, unsubscribe -1,
unwatch 1, wait 3, watch -2, xack -4 w, xadd -5 w, xautoclaim -6 w, xclaim -6 w, xdel -3 w, xgroup -2 w,
xinfo -2, xlen 2 r, xpending -3 r, xrange -4 r, xread -4 rb, xreadgroup -7 wb, xrevrange -4 r,
xsetid -3 w, xtrim -4 w, zadd -4 w, zcard 2 r, zcount 4 r, zdiff -3 r, zdiffstore -4 w, zincrby 4 w,
zinter -3 r, zintercard -3 r, zinterstore -4 w, zlexcount 4 r, zmpop -4 w, zmscore -3 r, zpopmax -2 w,
zpopmin -2 w, zrandmember -2 r, zrange -4 r, zrangebylex -4 r, zrangebyscore -4 r, zrangestore -5 w,
zrank 3 r, zrem -3 w, zremrangebylex 4 w, zremrangebyrank 4 w, zremrangebyscore 4 w, zrevrange -4 r,
zrevrangebylex -4 r, zrevrangebyscore -4 r, zrevrank 3 r, zscan -3 r, zscore 3 r, zunion -3 r,
zunionstore -4 w
`;
