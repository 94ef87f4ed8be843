/*
 * Subscribers that only count: connections that subscribe to one channel and read what comes, as cheaply as
 * a process can. They share the machine with what they measure.
 *
 *   subscribers SOURCE_ADDRESS PORT COUNT CHANNEL PAYLOAD_BYTES
 *
 * Says "ready" when all have subscribed, and then answers every line of its standard input with one line:
 *   count   messages received by all connections together, and the connections that were lost
 *   times   for message 1, 2, … the time at which the last connection had it: CLOCK_MONOTONIC, ns; 0 = not
 *           all have it
 * It ends with its standard input. All messages have the same size, so bytes tell how many came.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 200, EVENTS = 1024, BUFFER_BYTES = 256 * 1024, CONFIRM_SECONDS = 20 };

struct connection {
  int fd;
  uint64_t bytes;
};

struct message {
  uint32_t receivers;
  uint64_t last_ns;
};

static struct connection *connections;
static uint32_t count;
static uint64_t frame_bytes;
static uint64_t received, lost;
static struct message *messages;
static uint64_t messages_seen, messages_room;
static char buffer[BUFFER_BYTES];

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in address_of(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("not an IPv4 address: %s", host);
  return address;
}

static int connect_from(struct sockaddr_in source, struct sockaddr_in target) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (fd < 0) fail("socket: %s", strerror(errno));
  /* Ended by a reset: thousands of ports in TIME_WAIT would be missing in the next round. */
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  struct timeval patience = {.tv_sec = CONFIRM_SECONDS};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) fail("bind: %s", strerror(errno));
  if (connect(fd, (struct sockaddr *)&target, sizeof target) < 0) fail("connect: %s", strerror(errno));
  return fd;
}

static void await_confirmation(int fd, const char *expected, size_t length) {
  size_t got = 0;
  while (got < length) {
    ssize_t n = recv(fd, buffer + got, length - got, 0);
    if (n <= 0) fail("no confirmation: %s", n == 0 ? "closed" : strerror(errno));
    got += (size_t)n;
    if (memcmp(buffer, expected, got) != 0) fail("not a confirmation: %.*s", (int)got, buffer);
  }
}

/* Batch by batch, so that nobody's queue of new connections overflows. */
static void subscribe_all(struct sockaddr_in source, struct sockaddr_in target, const char *channel) {
  char request[512], confirmation[512];
  size_t name = strlen(channel);
  int request_length =
      snprintf(request, sizeof request, "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", name, channel);
  int expected = snprintf(confirmation, sizeof confirmation,
                          "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n", name, channel);
  for (uint32_t first = 0; first < count; first += BATCH) {
    uint32_t end = first + BATCH < count ? first + BATCH : count;
    for (uint32_t i = first; i < end; i++) {
      connections[i].fd = connect_from(source, target);
      if (send(connections[i].fd, request, (size_t)request_length, 0) != request_length) fail("send");
    }
    for (uint32_t i = first; i < end; i++) {
      await_confirmation(connections[i].fd, confirmation, (size_t)expected);
      fcntl(connections[i].fd, F_SETFL, O_NONBLOCK);
    }
  }
}

static void make_room(uint64_t wanted) {
  if (wanted <= messages_room) return;
  uint64_t room = messages_room * 2 > wanted ? messages_room * 2 : wanted + 1024;
  messages = realloc(messages, room * sizeof *messages);
  if (messages == NULL) fail("out of memory");
  memset(messages + messages_room, 0, (room - messages_room) * sizeof *messages);
  messages_room = room;
}

static void note_bytes(struct connection *connection, uint64_t bytes, uint64_t at_ns) {
  uint64_t before = connection->bytes / frame_bytes;
  connection->bytes += bytes;
  uint64_t after = connection->bytes / frame_bytes;
  received += after - before;
  if (after > messages_seen) make_room(messages_seen = after);
  for (uint64_t k = before; k < after; k++) {
    messages[k].receivers++;
    messages[k].last_ns = at_ns;
  }
}

static void read_from(struct connection *connection) {
  ssize_t n = recv(connection->fd, buffer, sizeof buffer, 0);
  if (n > 0) note_bytes(connection, (uint64_t)n, now_ns());
  else if (n == 0 || errno != EAGAIN) {
    close(connection->fd);
    lost++;
  }
}

static void answer(const char *question) {
  if (strcmp(question, "count") == 0) printf("%ju %ju\n", (uintmax_t)received, (uintmax_t)lost);
  else if (strcmp(question, "times") == 0) {
    for (uint64_t k = 0; k < messages_seen; k++) {
      uint64_t at_ns = messages[k].receivers == count ? messages[k].last_ns : 0;
      printf("%s%ju", k == 0 ? "" : " ", (uintmax_t)at_ns);
    }
    putchar('\n');
  } else fail("unknown question: %s", question);
  fflush(stdout);
}

/* One question at a time: the asker waits for the answer. */
static int answer_next(void) {
  char line[64];
  ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
  if (n <= 0) return 0;
  line[n] = 0;
  line[strcspn(line, "\n")] = 0;
  answer(line);
  return 1;
}

static void watch(int epoll, int fd, void *what) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

int main(int argc, char **argv) {
  if (argc != 6) fail("usage: %s SOURCE_ADDRESS PORT COUNT CHANNEL PAYLOAD_BYTES", argv[0]);
  count = (uint32_t)strtoul(argv[3], NULL, 10);
  const char *channel = argv[4];
  size_t payload = strtoul(argv[5], NULL, 10);
  if (strlen(channel) > 256) fail("the channel's name is too long");
  const char *frame = "*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n\r\n";
  frame_bytes = (uint64_t)snprintf(NULL, 0, frame, strlen(channel), channel, payload) + payload;
  connections = calloc(count, sizeof *connections);
  if (connections == NULL) fail("out of memory");
  subscribe_all(address_of(argv[1], 0), address_of("127.0.0.1", atoi(argv[2])), channel);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, STDIN_FILENO, NULL);
  for (uint32_t i = 0; i < count; i++) watch(epoll, connections[i].fd, &connections[i]);
  puts("ready");
  fflush(stdout);

  static struct epoll_event events[EVENTS];
  for (;;) {
    int n = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr != NULL) read_from(events[i].data.ptr);
      else if (!answer_next()) return 0;
    }
  }
}
