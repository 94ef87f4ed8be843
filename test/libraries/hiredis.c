/*
 * hiredis as applications use it: what it does and how it is answered, one line of JSON each.
 *
 *     hiredis PORT NAME
 *
 * NAME stands before all keys. A line "stop" on standard input ends the producers, its end ends all. Each user is a
 * thread with a connection of its own; hiredis never connects anew by itself.
 */
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PACE_US 5000
#define PIPELINED 10
#define FIXED_KEYS 1000
#define SCRIPT "return redis.call('INCR', KEYS[1])"

static int port;
static const char *name;
static volatile bool producing = true;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  pthread_mutex_lock(&printing);
  vprintf(format, args);
  putchar('\n');
  fflush(stdout);
  pthread_mutex_unlock(&printing);
  va_end(args);
}

/* Texts of errors become part of a JSON string. */
static void say_text(const char *step, const char *who, const char *text) {
  char plain[512];
  size_t length = 0;
  for (; *text != 0 && length + 1 < sizeof plain; text++)
    plain[length++] = *text == '"' || *text == '\\' || *text < ' ' ? '\'' : *text;
  plain[length] = 0;
  say("{\"step\":\"%s\",\"who\":\"%s\",\"text\":\"%s\"}", step, who, plain);
}

static void pace(void) {
  struct timespec pause = {0, (rand() % (2 * PACE_US)) * 1000L};
  nanosleep(&pause, NULL);
}

static redisContext *connected(void) {
  redisContext *context = redisConnect("127.0.0.1", port);
  if (context == NULL || context->err) {
    say_text("incident", "connect", context == NULL ? "no memory" : context->errstr);
    exit(1);
  }
  return context;
}

/* A lost connection is not made again: its user ends, and says so. */
static void lost(redisContext *context, const char *who) {
  say_text("incident", who, context->errstr);
  pthread_exit(NULL);
}

static redisReply *command(redisContext *context, const char *who, const char *format, ...) {
  va_list args;
  va_start(args, format);
  redisReply *reply = redisvCommand(context, format, args);
  va_end(args);
  if (reply == NULL) lost(context, who);
  return reply;
}

static bool is_error(redisReply *reply, const char *who) {
  if (reply->type != REDIS_REPLY_ERROR) return false;
  say_text("error", who, reply->str);
  return true;
}

static bool is_uncertain(const redisReply *reply) {
  return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "UNCERTAIN ", 10) == 0;
}

/* Says how a call was answered: acknowledged, uncertain, or not run. */
static bool settle(redisReply *reply, const char *step, const char *field, const char *value) {
  bool failed = is_error(reply, step);
  if (!failed || is_uncertain(reply))
    say("{\"step\":\"%s\",\"%s\":\"%s\",\"outcome\":\"%s\"}", step, field, value, failed ? "uncertain" : "acked");
  return !failed;
}

/* Increments in one pipeline, each with a read behind it. */
static void *pipeliner(void *unused) {
  (void)unused;
  redisContext *context = connected();
  while (producing) {
    char key[PIPELINED][128];
    for (int i = 0; i < PIPELINED; i++) {
      snprintf(key[i], sizeof key[i], "%s:n:%d", name, i);
      redisAppendCommand(context, "INCR %s", key[i]);
      redisAppendCommand(context, "GET %s", key[i]);
    }
    for (int i = 0; i < PIPELINED; i++) {
      redisReply *incremented, *read;
      if (redisGetReply(context, (void **)&incremented) != REDIS_OK) lost(context, "pipeline");
      if (redisGetReply(context, (void **)&read) != REDIS_OK) lost(context, "pipeline");
      bool ran = settle(incremented, "counter", "key", key[i]);
      if (!is_error(read, "GET") && ran && strtoll(read->str, NULL, 10) < incremented->integer)
        say("{\"step\":\"missed\",\"text\":\"%s: %s after %lld\"}", key[i], read->str, incremented->integer);
      freeReplyObject(incremented);
      freeReplyObject(read);
    }
    pace();
  }
  return NULL;
}

static void *transaction(void *unused) {
  (void)unused;
  redisContext *context = connected();
  char key[128];
  snprintf(key, sizeof key, "%s:watched", name);
  while (producing) {
    freeReplyObject(command(context, "WATCH", "WATCH %s", key));
    redisReply *got = command(context, "GET", "GET %s", key);
    long long value = got->type == REDIS_REPLY_STRING ? strtoll(got->str, NULL, 10) : 0;
    bool failed = is_error(got, "GET");
    freeReplyObject(got);
    if (failed) continue;
    freeReplyObject(command(context, "MULTI", "MULTI"));
    freeReplyObject(command(context, "SET", "SET %s %lld", key, value + 1));
    freeReplyObject(command(context, "INCRBY", "INCRBY %s 0", key)); /* What is there now, as a number. */
    redisReply *executed = command(context, "EXEC", "EXEC");
    if (executed->type == REDIS_REPLY_NIL)
      say("{\"step\":\"aborted\"}");
    else if (settle(executed, "transaction", "key", key) &&
             (executed->elements != 2 || executed->element[1]->integer != value + 1))
      say_text("fault", "EXEC", "EXEC answered something else");
    freeReplyObject(executed);
    pace();
  }
  return NULL;
}

static void *script(void *unused) {
  (void)unused;
  redisContext *context = connected();
  redisReply *sha = command(context, "SCRIPT", "SCRIPT LOAD %s", SCRIPT);
  char key[128];
  snprintf(key, sizeof key, "%s:scripted", name);
  while (producing) {
    redisReply *reply = command(context, "EVALSHA", "EVALSHA %s 1 %s", sha->str, key);
    settle(reply, "script", "key", key);
    freeReplyObject(reply);
    pace();
  }
  return NULL;
}

static void *pusher(void *unused) {
  (void)unused;
  redisContext *context = connected();
  for (int job = 1; producing; job++) {
    char text[16];
    snprintf(text, sizeof text, "%d", job);
    redisReply *reply = command(context, "RPUSH", "RPUSH %s:jobs %s", name, text);
    settle(reply, "push", "job", text);
    freeReplyObject(reply);
    pace();
  }
  return NULL;
}

static void *publisher(void *unused) {
  (void)unused;
  redisContext *context = connected();
  for (int number = 1; producing; number++) {
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    redisReply *reply = command(context, "PUBLISH", "PUBLISH %s:numbers %s", name, text);
    settle(reply, "published", "number", text);
    freeReplyObject(reply);
    pace();
  }
  return NULL;
}

/* Cursors are unsigned numbers of 64 bits, and are handled as such. */
static void *scanner(void *unused) {
  (void)unused;
  redisContext *context = connected();
  char prefix[128];
  size_t length = (size_t)snprintf(prefix, sizeof prefix, "%s:fixed:", name);
  while (producing) {
    bool seen[FIXED_KEYS] = {false}, failed = false;
    unsigned long long cursor = 0;
    do {
      redisReply *reply = command(context, "SCAN", "SCAN %llu MATCH %s* COUNT 50", cursor, prefix);
      failed = is_error(reply, "SCAN");
      if (!failed) {
        cursor = strtoull(reply->element[0]->str, NULL, 10);
        redisReply *keys = reply->element[1];
        for (size_t i = 0; i < keys->elements; i++) seen[atoi(keys->element[i]->str + length)] = true;
      }
      freeReplyObject(reply);
    } while (cursor != 0 && !failed);
    int missed = 0;
    for (int i = 0; i < FIXED_KEYS; i++) missed += !seen[i];
    if (!failed) say("{\"step\":\"scan\",\"missed\":%d}", missed);
    pace();
  }
  return NULL;
}

static void *popper(void *unused) {
  (void)unused;
  redisContext *context = connected();
  for (;;) {
    redisReply *reply = command(context, "BLPOP", "BLPOP %s:jobs 1", name);
    if (!is_error(reply, "popper") && reply->type == REDIS_REPLY_ARRAY)
      say("{\"step\":\"pop\",\"job\":\"%s\"}", reply->element[1]->str);
    freeReplyObject(reply);
  }
  return NULL;
}

static void *subscriber(void *unused) {
  (void)unused;
  redisContext *context = connected();
  freeReplyObject(command(context, "SUBSCRIBE", "SUBSCRIBE %s:numbers", name));
  for (;;) {
    redisReply *message;
    if (redisGetReply(context, (void **)&message) != REDIS_OK) lost(context, "subscriber");
    if (strcmp(message->element[0]->str, "message") == 0)
      say("{\"step\":\"message\",\"number\":\"%s\"}", message->element[2]->str);
    else
      say_text("fault", "subscriber", "a second confirmation");
    freeReplyObject(message);
  }
  return NULL;
}

static pthread_t started(void *(*user)(void *)) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, user, NULL) != 0) exit(1);
  return thread;
}

int main(int count, char **args) {
  if (count != 3) return 2;
  port = atoi(args[1]);
  name = args[2];
  redisContext *context = connected();
  for (int i = 0; i < FIXED_KEYS; i++) freeReplyObject(command(context, "SET", "SET %s:fixed:%d x", name, i));
  started(subscriber);
  started(popper);
  void *(*const users[])(void *) = {
      pipeliner, pipeliner, transaction, transaction, script, pusher, publisher, scanner,
  };
  enum { USERS = sizeof users / sizeof *users };
  pthread_t producers[USERS];
  for (int i = 0; i < USERS; i++) producers[i] = started(users[i]);
  char line[16];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strcmp(line, "stop\n") != 0) continue;
    producing = false;
    for (int i = 0; i < USERS; i++) pthread_join(producers[i], NULL);
    say("{\"step\":\"stopped\"}");
  }
  exit(0);
}
