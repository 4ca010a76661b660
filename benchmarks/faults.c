/* Counts what a process does to the files below a folder, and lets the n-th of it go wrong.

   cc -shared -fPIC -O1 -o faults.so faults.c -ldl;  LD_PRELOAD=faults.so, and in the environment
     FAULTS_BELOW  the folder
     FAULTS_AT     n, from 1; 0 only counts
     FAULTS_KIND   eio (this once), enospc (from here on), kill (half of a write is written) or lock
     FAULTS_COUNT  a file that gets a line for each operation, which ends with the process
   Operations are opening for writing, write, rename, fsync, mkdir, truncate and removal. Of kind
   lock they are locks of files that a worker of a study took or let go of, and the first worker to
   come to its n-th dies behind it; it leaves a file FAULTS_BELOW.died. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int below(int dir, const char *path) {
  const char *root = getenv("FAULTS_BELOW");
  char whole[2 * PATH_MAX];
  if (!root || !path) return 0;
  if (path[0] == '/') {
    snprintf(whole, sizeof whole, "%s", path);
  } else {
    char link[64], from[PATH_MAX];
    if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, from, sizeof from - 1);
    if (length < 0) return 0;
    from[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", from, path);
  }
  return !strncmp(whole, root, strlen(root));
}

static int fd_below(int fd) {
  char link[64], path[PATH_MAX];
  if (fd < 3) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return below(AT_FDCWD, path);
}

static int is_of_locks(void) {
  const char *kind = getenv("FAULTS_KIND");
  return kind && !strcmp(kind, "lock");
}

static int is_worker(void) {
  char line[8192];
  int fd = REAL(open)("/proc/self/cmdline", O_RDONLY);
  ssize_t length = fd < 0 ? 0 : read(fd, line, sizeof line);
  if (fd >= 0) REAL(close)(fd);
  return length > 0 && memmem(line, length, "--worker=", 9) != NULL;
}

static int is_first_to_die(void) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s.died", getenv("FAULTS_BELOW"));
  return REAL(open)(path, O_WRONLY | O_CREAT | O_EXCL, 0644) >= 0;
}

/* 0: go on; 1: fail with errno set; 2: die, after half a write. */
static int fault(const char *what, const char *where) {
  static long seen = 0;
  int of_locks = !strcmp(what, "lock") || !strcmp(what, "unlock");
  if (of_locks != is_of_locks()) return 0;
  pthread_mutex_lock(&lock);
  long now = ++seen, at = atol(getenv("FAULTS_AT") ? getenv("FAULTS_AT") : "0");
  const char *kind = getenv("FAULTS_KIND"), *count = getenv("FAULTS_COUNT");
  if (count) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s %d\n", what, where, getpid());
    int fd = REAL(open)(count, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (fd >= 0) { if (REAL(write)(fd, line, length)) {} REAL(close)(fd); }
  }
  pthread_mutex_unlock(&lock);
  if (!at || !kind || now < at) return 0;
  if (!strcmp(kind, "kill")) return 2;
  if (of_locks) return now == at && is_first_to_die() ? 2 : 0;
  if (!strcmp(kind, "enospc")) {
    if (!strcmp(what, "unlink") || !strcmp(what, "rename")) return 0; /* a full disk lets go */
    errno = ENOSPC;
    return 1;
  }
  errno = EIO;
  return now == at;
}

static int guard(const char *what, const char *where) {
  int found = fault(what, where);
  if (found == 2) kill(getpid(), SIGKILL);
  return found;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if ((flags & (O_WRONLY | O_RDWR)) && below(AT_FDCWD, path) && guard("open", path)) return -1; \
    return REAL(name)(path, flags, mode); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
  int name(int dir, const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if ((flags & (O_WRONLY | O_RDWR)) && below(dir, path) && guard("open", path)) return -1; \
    return REAL(name)(dir, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t count) {
  if (fd_below(fd)) {
    int found = fault("write", "");
    if (found == 2) { if (REAL(write)(fd, bytes, count / 2)) {} kill(getpid(), SIGKILL); }
    if (found) return -1;
  }
  return REAL(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (fd_below(fd) && guard("write", "")) return -1;
  return REAL(writev)(fd, parts, count);
}

#define PWRITE(name, offset_t) \
  ssize_t name(int fd, const void *bytes, size_t count, offset_t offset) { \
    if (fd_below(fd) && guard("write", "")) return -1; \
    return REAL(name)(fd, bytes, count, offset); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

int rename(const char *from, const char *to) {
  if (below(AT_FDCWD, to) && guard("rename", to)) return -1;
  return REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
  if (below(b, to) && guard("rename", to)) return -1;
  return REAL(renameat)(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
  if (below(b, to) && guard("rename", to)) return -1;
  return REAL(renameat2)(a, from, b, to, flags);
}
int fsync(int fd) { return fd_below(fd) && guard("fsync", "") ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fd_below(fd) && guard("fsync", "") ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) {
  return fd_below(fd) && guard("truncate", "") ? -1 : REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) {
  return fd_below(fd) && guard("truncate", "") ? -1 : REAL(ftruncate64)(fd, size);
}
int mkdir(const char *path, mode_t mode) {
  return below(AT_FDCWD, path) && guard("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode) {
  return below(dir, path) && guard("mkdir", path) ? -1 : REAL(mkdirat)(dir, path, mode);
}
int unlink(const char *path) {
  return below(AT_FDCWD, path) && guard("unlink", path) ? -1 : REAL(unlink)(path);
}
int unlinkat(int dir, const char *path, int flags) {
  return below(dir, path) && guard("unlink", path) ? -1 : REAL(unlinkat)(dir, path, flags);
}
int rmdir(const char *path) {
  return below(AT_FDCWD, path) && guard("unlink", path) ? -1 : REAL(rmdir)(path);
}

static char locked[4096]; /* by descriptor */

int flock(int fd, int operation) {
  int result = REAL(flock)(fd, operation);
  if (!result && fd < (int)sizeof locked && is_of_locks() && fd_below(fd) && is_worker()) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) path[0] = 0; /* says which, in the count */
    locked[fd] = !(operation & LOCK_UN);
    guard(locked[fd] ? "lock" : "unlock", path);
  }
  return result;
}

int close(int fd) {
  int held = fd >= 0 && fd < (int)sizeof locked && locked[fd];
  if (held) locked[fd] = 0;
  int result = REAL(close)(fd);
  if (held) guard("unlock", "");
  return result;
}
