/*
 * Reads and writes of 16-byte keys over connections that share one thread, as cheaply as a process can make
 * them: it shares the machine with what it measures.
 *
 *   traffic PORT CLIENTS PIPELINE RATE SECONDS WRITE_PERCENT KEYS SKEW ORDER
 *
 * RATE           requests offered each second, in batches of PIPELINE, whether or not the last ones are
 *                answered: a batch waits for a client that has nothing under way, and its latency counts from
 *                when it was due. 0 = every client sends its next batch when the last one is answered.
 * SKEW           exponent of the Zipf distribution of the keys; 0 = all alike
 * ORDER          mixed   every request draws what it is and its key
 *                apart   every batch is of reads or of writes alone
 *                back    a batch of SET, then one of GET of the same keys, which no other client writes
 *                fill    every key is set once, to the value of no write; only PORT, PIPELINE and KEYS count
 *
 * The value of a write is its number, so a reply tells which write it shows. A reply is stale when the write
 * it shows was answered before another one of the same key was sent, and that one was answered before the
 * read was sent: to a client of ours (staleAny), to the very client that read (staleOwn).
 *
 * Says one line of JSON in the end. Keys must have been filled before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
  PIPELINE_MOST = 64,
  VALUE_BYTES = 16,
  REQUEST_BYTES_MOST = 96,
  REPLY_BYTES_MOST = 512,
  DRAWS = 1 << 18,
  TICK_NS = 200000,
  BUCKET_US = 5,
  BUCKETS = 400000,
  DRAIN_SECONDS_MOST = 10,
};

#define GET_FORMAT "*2\r\n$3\r\nGET\r\n$16\r\nbench:%010u\r\n"

enum kind { READ, WRITE };

struct request {
  enum kind kind;
  uint32_t key;
  uint64_t write;        /* number of the write */
  uint64_t any_floor_ns; /* of a read: when the last write was sent that had been answered to anybody */
  uint64_t own_floor_ns; /* … and to this client */
};

struct client {
  int fd;
  uint32_t index;
  uint64_t due_ns;  /* of the batch under way */
  uint64_t sent_ns;
  uint32_t sent, answered;
  int reads_back;   /* its next batch reads what the last one wrote */
  struct request batch[PIPELINE_MOST];
  uint32_t length;  /* of what it has received and not read yet */
  char received[REPLY_BYTES_MOST * 4];
};

struct times {
  uint64_t sent_ns, answered_ns;
};

static uint32_t clients, pipeline, write_percent, keys;
static double rate, seconds, skew;
static int is_back, is_apart, is_fill;

static struct client *all;
static struct client **idle;
static uint32_t idle_count;

static struct times *writes;
static uint64_t writes_made = 1, writes_room; /* number 0 = the value that keys are filled with */
static uint64_t *any_floor_ns, *own_floor_ns;
static char *read_requests;
static uint32_t read_bytes;
static uint32_t *draws;
static uint64_t draw, dice = 88172645463325252u;

static uint64_t answered[2], errors, stale_any, stale_own, under_way;
static uint32_t *histogram[2];
static int is_over;

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static void *room_for(size_t count, size_t bytes) {
  void *room = calloc(count, bytes);
  if (room == NULL) fail("out of memory");
  return room;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t roll(void) {
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return dice;
}

/* Keys are drawn beforehand, and then taken in that order. */
static void draw_keys(void) {
  double *below = room_for(keys, sizeof *below), sum = 0;
  for (uint32_t k = 0; k < keys; k++) below[k] = sum += pow(k + 1, -skew);
  draws = room_for(DRAWS, sizeof *draws);
  for (uint32_t i = 0; i < DRAWS; i++) {
    double at = (double)(roll() >> 11) / (double)(1ull << 53) * sum;
    uint32_t low = 0, high = keys - 1;
    while (low < high) {
      uint32_t middle = (low + high) / 2;
      if (below[middle] > at) high = middle;
      else low = middle + 1;
    }
    draws[i] = low;
  }
  free(below);
}

static void make_requests(void) {
  read_bytes = (uint32_t)snprintf(NULL, 0, GET_FORMAT, 0);
  read_requests = room_for(keys, read_bytes + 1);
  for (uint32_t k = 0; k < keys; k++)
    snprintf(read_requests + (size_t)k * read_bytes, read_bytes + 1, GET_FORMAT, k);
}

static uint32_t put_read(char *to, uint32_t key) {
  memcpy(to, read_requests + (size_t)key * read_bytes, read_bytes);
  return read_bytes;
}

static uint32_t put_write(char *to, uint32_t key, uint64_t write) {
  static const char head[] = "*3\r\n$3\r\nSET\r\n$16\r\nbench:", middle[] = "\r\n$16\r\n", end[] = "\r\n";
  char *at = to;
  memcpy(at, head, sizeof head - 1), at += sizeof head - 1;
  memcpy(at, read_requests + (size_t)key * read_bytes + read_bytes - 12, 10), at += 10;
  memcpy(at, middle, sizeof middle - 1), at += sizeof middle - 1;
  for (int i = VALUE_BYTES - 1; i >= 0; i--, write /= 10) at[i] = (char)('0' + write % 10);
  at += VALUE_BYTES;
  memcpy(at, end, sizeof end - 1);
  return (uint32_t)(at - to) + sizeof end - 1;
}

static uint64_t new_write(uint64_t sent_ns) {
  if (writes_made >= writes_room) {
    writes_room = writes_room == 0 ? 1 << 20 : writes_room * 2;
    writes = realloc(writes, writes_room * sizeof *writes);
    if (writes == NULL) fail("out of memory");
  }
  writes[writes_made] = (struct times){.sent_ns = sent_ns};
  return writes_made++;
}

static uint32_t draw_key(const struct client *client) {
  uint32_t key = draws[draw++ % DRAWS];
  if (!is_back) return key;
  uint32_t own = key - key % clients + client->index;
  return own < keys ? own : client->index;
}

static int draw_is_write(void) {
  return (uint32_t)(roll() >> 32) % 100 < write_percent;
}

/* One write for all of it: nothing else is under way, so the socket has room. */
static void send_batch(struct client *client, uint64_t due_ns, uint64_t at_ns) {
  static char buffer[PIPELINE_MOST * REQUEST_BYTES_MOST];
  uint32_t length = 0;
  int writes_apart = draw_is_write();
  for (uint32_t i = 0; i < pipeline; i++) {
    struct request *request = &client->batch[i];
    if (!client->reads_back) request->key = draw_key(client);
    int is_write = is_back ? !client->reads_back : is_apart ? writes_apart : draw_is_write();
    request->kind = is_write ? WRITE : READ;
    if (is_write) {
      request->write = new_write(at_ns);
      length += put_write(buffer + length, request->key, request->write);
    } else {
      request->any_floor_ns = any_floor_ns[request->key];
      request->own_floor_ns = own_floor_ns[(size_t)client->index * keys + request->key];
      length += put_read(buffer + length, request->key);
    }
  }
  client->due_ns = due_ns;
  client->sent_ns = at_ns;
  client->sent = pipeline;
  client->answered = 0;
  under_way++;
  if (send(client->fd, buffer, length, MSG_NOSIGNAL) != length) fail("send: %s", strerror(errno));
}

static void raise_floor(uint64_t *floor, uint64_t to_ns) {
  if (*floor < to_ns) *floor = to_ns;
}

static void note_write(const struct client *client, const struct request *request, int is_ok,
                       uint64_t at_ns) {
  if (!is_ok) {
    errors++;
    return;
  }
  struct times *times = &writes[request->write];
  times->answered_ns = at_ns;
  raise_floor(&any_floor_ns[request->key], times->sent_ns);
  raise_floor(&own_floor_ns[(size_t)client->index * keys + request->key], times->sent_ns);
}

/* `value` is null when the reply was no value of ours. */
static void note_read(const struct request *request, const char *value) {
  if (value == NULL) {
    errors++;
    return;
  }
  uint64_t write = 0;
  for (int i = 0; i < VALUE_BYTES; i++) write = write * 10 + (uint64_t)(value[i] - '0');
  if (write >= writes_made) fail("a value that nobody wrote: %.16s", value);
  uint64_t shown_ns = write == 0 ? 1 : writes[write].answered_ns;
  if (shown_ns == 0) return;
  stale_any += shown_ns < request->any_floor_ns;
  stale_own += shown_ns < request->own_floor_ns;
}

static void note_reply(struct client *client, const char *line, const char *value, uint64_t at_ns) {
  if (client->answered == client->sent) fail("a reply that nobody asked for");
  const struct request *request = &client->batch[client->answered++];
  if (request->kind == WRITE) note_write(client, request, line[0] == '+', at_ns);
  else note_read(request, value);
  answered[request->kind]++;
  uint64_t bucket = (at_ns - client->due_ns) / (1000 * BUCKET_US);
  histogram[request->kind][bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

/* One reply at the start of `from`. Returns its bytes; 0 = it is not there as a whole. */
static uint32_t take_reply(struct client *client, const char *from, const char *to, uint64_t at_ns) {
  const char *end = memchr(from, '\n', (size_t)(to - from));
  if (end == NULL) return 0;
  const char *next = end + 1, *value = NULL;
  if (from[0] == '$' && from[1] != '-') {
    long bytes = strtol(from + 1, NULL, 10);
    if (to - next < bytes + 2) return 0;
    if (bytes == VALUE_BYTES) value = next;
    next += bytes + 2;
  }
  note_reply(client, from, value, at_ns);
  return (uint32_t)(next - from);
}

static void release(struct client *client, uint64_t at_ns) {
  under_way--;
  if (is_back) client->reads_back = !client->reads_back;
  if (is_over) return;
  /* What is read back is read at once, at whatever rate the writes come. */
  if (rate == 0 || client->reads_back) send_batch(client, at_ns, at_ns);
  else idle[idle_count++] = client;
}

static void receive(struct client *client) {
  size_t room = sizeof client->received - client->length;
  ssize_t n = recv(client->fd, client->received + client->length, room, 0);
  if (n == 0) fail("the connection was closed");
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) fail("recv: %s", strerror(errno));
  uint64_t at_ns = now_ns();
  const char *at = client->received, *to = at + client->length + n;
  for (uint32_t bytes; at < to && (bytes = take_reply(client, at, to, at_ns)) > 0;) at += bytes;
  client->length = (uint32_t)(to - at);
  if (client->length == sizeof client->received) fail("a reply that is too long");
  memmove(client->received, at, client->length);
  if (client->answered == client->sent && client->sent > 0) {
    client->sent = client->answered = 0;
    release(client, at_ns);
  }
}

static int connect_to(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
    fail("connect: %s", strerror(errno));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static void watch(int epoll, int fd, void *what) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

static void connect_all(int epoll, int port) {
  all = room_for(clients, sizeof *all);
  idle = room_for(clients, sizeof *idle);
  for (uint32_t i = 0; i < clients; i++) {
    all[i].index = i;
    all[i].fd = connect_to(port);
    fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
    watch(epoll, all[i].fd, &all[i]);
    idle[idle_count++] = &all[i];
  }
}

static double quantile_ms(enum kind kind, double q) {
  uint64_t rank = (uint64_t)(q * (double)answered[kind]), seen = 0;
  for (uint32_t i = 0; i < BUCKETS; i++) {
    seen += histogram[kind][i];
    if (seen > rank) return (i + 0.5) * BUCKET_US / 1000;
  }
  return 0;
}

static void report(double took_seconds) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
  cpu += (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf("{\"seconds\":%.6f,\"cpuSeconds\":%.6f,\"errors\":%ju", took_seconds, cpu, (uintmax_t)errors);
  printf(",\"staleAny\":%ju,\"staleOwn\":%ju", (uintmax_t)stale_any, (uintmax_t)stale_own);
  const char *names[] = {"read", "write"};
  for (enum kind kind = READ; kind <= WRITE; kind++)
    printf(",\"%ss\":%ju,\"%sP50Ms\":%.4f,\"%sP99Ms\":%.4f", names[kind], (uintmax_t)answered[kind],
           names[kind], quantile_ms(kind, 0.5), names[kind], quantile_ms(kind, 0.99));
  puts("}");
}

/* Sends every batch that is due to a client that is idle. Returns how many were due so far. */
static uint64_t send_due(uint64_t start_ns, uint64_t sent, uint64_t end_ns) {
  double gap_ns = 1e9 * pipeline / rate;
  for (;; sent++) {
    uint64_t due_ns = start_ns + (uint64_t)((double)sent * gap_ns), at_ns = now_ns();
    if (due_ns > at_ns || due_ns >= end_ns || idle_count == 0) return sent;
    /* Those that have been idle for longest come first, so that all take part. */
    struct client *client = idle[0];
    memmove(idle, idle + 1, --idle_count * sizeof *idle);
    send_batch(client, due_ns, at_ns);
  }
}

static void run(int epoll, int timer) {
  static struct epoll_event events[256];
  uint64_t start_ns = now_ns(), end_ns = start_ns + (uint64_t)(seconds * 1e9), sent = 0;
  if (rate == 0)
    while (idle_count > 0) send_batch(idle[--idle_count], start_ns, now_ns());
  while (!is_over || under_way > 0) {
    int n = epoll_wait(epoll, events, 256, 100);
    for (int i = 0; i < n; i++) {
      uint64_t ticks;
      if (events[i].data.ptr != NULL) receive(events[i].data.ptr);
      else if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("timer: %s", strerror(errno));
    }
    uint64_t at_ns = now_ns();
    if (at_ns >= end_ns) is_over = 1;
    else if (rate > 0) sent = send_due(start_ns, sent, end_ns);
    if (at_ns > end_ns + DRAIN_SECONDS_MOST * 1000000000ull) fail("replies did not come");
  }
  report((double)(now_ns() - start_ns) / 1e9);
}

static void fill(int port) {
  static char buffer[PIPELINE_MOST * REQUEST_BYTES_MOST];
  int fd = connect_to(port);
  for (uint32_t k = 0; k < keys;) {
    uint32_t length = 0, replies = 0;
    for (; replies < pipeline && k < keys; replies++, k++) length += put_write(buffer + length, k, 0);
    if (send(fd, buffer, length, MSG_NOSIGNAL) != length) fail("send: %s", strerror(errno));
    char answers[PIPELINE_MOST * 5];
    ssize_t got = recv(fd, answers, replies * 5, MSG_WAITALL);
    if (got != (ssize_t)replies * 5) fail("recv: %s", strerror(errno));
    if (memcmp(answers, "+OK\r\n", 5) != 0) fail("SET was answered %.*s", (int)replies * 5, answers);
  }
}

int main(int argc, char **argv) {
  if (argc != 10)
    fail("usage: %s PORT CLIENTS PIPELINE RATE SECONDS WRITE_PERCENT KEYS SKEW ORDER", argv[0]);
  int port = atoi(argv[1]);
  clients = (uint32_t)atoi(argv[2]);
  pipeline = (uint32_t)atoi(argv[3]);
  rate = atof(argv[4]);
  seconds = atof(argv[5]);
  write_percent = (uint32_t)atoi(argv[6]);
  keys = (uint32_t)atoi(argv[7]);
  skew = atof(argv[8]);
  is_back = strcmp(argv[9], "back") == 0;
  is_apart = strcmp(argv[9], "apart") == 0;
  is_fill = strcmp(argv[9], "fill") == 0;
  if (clients < 1 || pipeline < 1 || pipeline > PIPELINE_MOST || keys < clients) fail("out of range");
  make_requests();
  if (is_fill) {
    fill(port);
    return 0;
  }
  dice ^= now_ns();
  draw_keys();
  any_floor_ns = room_for(keys, sizeof *any_floor_ns);
  own_floor_ns = room_for((size_t)clients * keys, sizeof *own_floor_ns);
  for (enum kind kind = READ; kind <= WRITE; kind++) histogram[kind] = room_for(BUCKETS, sizeof(uint32_t));

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  connect_all(epoll, port);
  if (rate > 0) {
    struct itimerspec tick = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};
    timerfd_settime(timer, 0, &tick, NULL);
    watch(epoll, timer, NULL);
  }
  run(epoll, timer);
}
