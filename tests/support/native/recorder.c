/* Records, in one order and with their data, the system calls that change the files of one folder.

   Loaded with LD_PRELOAD; does nothing until record_start. Every change that succeeded stands in the
   trace as it was done, with the bytes that were really written. A sync has two entries, one before
   and one after it: it covers what was written before it began, and nothing is known of it until it ends.
   Changes are made one at a time; a sync does not keep others from writing meanwhile. What the trace
   could not say (a relative path, a copy inside the kernel) is entered as such, and fails the trial. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, RESIZE, WRITE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MKDIR, MARK, UNKNOWN };
enum { DURABLE = 1 };
enum { DESCRIPTORS = 4096 };

struct entry {
    uint8_t kind, flags;
    uint16_t path_bytes;
    uint32_t data_bytes;
    uint64_t inode, number;
};

static struct { int used, durable; uint64_t inode; char name[64]; } files[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char root[4096];
static size_t root_bytes;
static void (*during_sync)(uint64_t inode);

static void enter(int kind, int flags, uint64_t inode, uint64_t number, const char *path,
                  const struct iovec *data, int count, size_t data_bytes) {
    struct entry entry = {(uint8_t)kind, (uint8_t)flags, (uint16_t)strlen(path), (uint32_t)data_bytes, inode, number};
    struct iovec head[2] = {{&entry, sizeof entry}, {(void *)path, entry.path_bytes}};
    if (syscall(SYS_writev, trace, head, 2) < 0) _exit(99);
    for (int i = 0; i < count && data_bytes > 0; i++) {
        size_t part = data[i].iov_len < data_bytes ? data[i].iov_len : data_bytes;
        if (part > 0 && syscall(SYS_write, trace, data[i].iov_base, part) != (long)part) _exit(99);
        data_bytes -= part;
    }
}

static void note(int kind, uint64_t inode, uint64_t number, const char *path) {
    enter(kind, 0, inode, number, path, NULL, 0, 0);
}

/* Whether a path lies in the folder; a relative one is only known not to be if no descriptor of ours leads to it. */
static int inside(int folder, const char *path) {
    if (trace < 0 || path == NULL) return 0;
    if (path[0] == '/') return strncmp(path, root, root_bytes) == 0 && (path[root_bytes] == '/' || path[root_bytes] == 0);
    if (folder >= 0 && folder < DESCRIPTORS && files[folder].used) note(UNKNOWN, 0, 0, path);
    return 0;
}

static int tracked(int fd) { return trace >= 0 && fd >= 0 && fd < DESCRIPTORS && files[fd].used; }

void record_start(const char *folder, const char *trace_path) {
    root_bytes = strlen(strcpy(root, folder));
    memset(files, 0, sizeof files);
    trace = (int)syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

void record_stop(void) { trace = -1; }

void record_during_sync(void (*function)(uint64_t inode)) { during_sync = function; }

void record_mark(uint64_t number, uint64_t meaning) {
    if (trace < 0) return;
    pthread_mutex_lock(&lock);
    note(MARK, meaning, number, "");
    pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------------------- opening and closing */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    if (!inside(folder, path)) return (int)syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat status;
    int there = stat(path, &status) == 0;
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    int failure = errno;
    if (fd >= DESCRIPTORS) note(UNKNOWN, 0, 0, path);
    if (fd >= 0 && fd < DESCRIPTORS && fstat(fd, &status) == 0) {
        files[fd].used = 1;
        files[fd].durable = (flags & O_DSYNC) != 0;
        files[fd].inode = status.st_ino;
        const char *name = strrchr(path, '/') + 1;
        strncpy(files[fd].name, name, sizeof files[fd].name - 1);
        if (!there) note(CREATE, status.st_ino, 0, path);
        else if (flags & O_TRUNC) note(RESIZE, status.st_ino, 0, files[fd].name);
    }
    pthread_mutex_unlock(&lock);
    errno = failure;
    return fd;
}

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, mode) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, mode) return opened(folder, path, flags, mode); }

int close(int fd) {
    if (tracked(fd)) files[fd].used = 0;
    return (int)syscall(SYS_close, fd);
}

/* ------------------------------------------------------------------------------------------- writing */

static ssize_t written(int fd, const struct iovec *data, int count, off_t offset, int moves) {
    if (!tracked(fd)) {
        return moves ? syscall(SYS_writev, fd, data, count) : syscall(SYS_pwritev, fd, data, count, offset, 0);
    }
    pthread_mutex_lock(&lock);
    if (moves) offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = moves ? syscall(SYS_writev, fd, data, count) : syscall(SYS_pwritev, fd, data, count, offset, 0);
    int failure = errno;
    if (done > 0) enter(WRITE, files[fd].durable ? DURABLE : 0, files[fd].inode, (uint64_t)offset, files[fd].name, data, count, (size_t)done);
    pthread_mutex_unlock(&lock);
    errno = failure;
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!tracked(fd)) return syscall(SYS_write, fd, data, size);
    struct iovec part = {(void *)data, size};
    return written(fd, &part, 1, 0, 1);
}

static ssize_t written_at(int fd, const void *data, size_t size, off_t offset) {
    struct iovec part = {(void *)data, size};
    return written(fd, &part, 1, offset, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return written_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return written_at(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *data, int count) { return written(fd, data, count, 0, 1); }
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t offset) { return written(fd, data, count, offset, 0); }
ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t offset) { return written(fd, data, count, offset, 0); }

static int resized(int fd, off_t size) {
    if (!tracked(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_ftruncate, fd, size);
    int failure = errno;
    if (result == 0) note(RESIZE, files[fd].inode, (uint64_t)size, files[fd].name);
    pthread_mutex_unlock(&lock);
    errno = failure;
    return result;
}

int ftruncate(int fd, off_t size) { return resized(fd, size); }
int ftruncate64(int fd, off64_t size) { return resized(fd, size); }

#define UNTOLD(fd, name) if (tracked(fd)) note(UNKNOWN, files[fd].inode, 0, name)

int fallocate(int fd, int mode, off_t offset, off_t size) {
    UNTOLD(fd, "fallocate");
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return fallocate(fd, mode, offset, size); }

int posix_fallocate(int fd, off_t offset, off_t size) {
    UNTOLD(fd, "posix_fallocate");
    return syscall(SYS_fallocate, fd, 0, offset, size) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) { return posix_fallocate(fd, offset, size); }

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t size, unsigned flags) {
    UNTOLD(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, size, flags);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    UNTOLD(to, "sendfile");
    return syscall(SYS_sendfile, to, from, offset, size);
}

/* ------------------------------------------------------------------------------------------- syncing */

static int synced(int fd, long call) {
    static uint64_t syncs;
    if (!tracked(fd)) return (int)syscall(call, fd);
    uint64_t inode = files[fd].inode;
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    note(SYNC_BEGIN, inode, number, files[fd].name);
    pthread_mutex_unlock(&lock);
    if (during_sync != NULL) during_sync(inode);
    int result = (int)syscall(call, fd);
    int failure = errno;
    if (result == 0) {
        pthread_mutex_lock(&lock);
        note(SYNC_END, inode, number, files[fd].name);
        pthread_mutex_unlock(&lock);
    }
    errno = failure;
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* --------------------------------------------------------------------------------------------- names */

static int named(int kind, int folder, const char *path, const char *other, long number, long a, long b, long c, long d) {
    int ours = inside(folder, path);
    if (!ours) return (int)syscall(number, a, b, c, d, 0);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(number, a, b, c, d, 0);
    int failure = errno;
    if (result == 0) {
        struct iovec data = {(void *)other, strlen(other)};
        struct stat status = {0};
        if (kind == MKDIR && stat(path, &status) != 0) note(UNKNOWN, 0, 0, path);
        enter(kind, 0, status.st_ino, 0, path, &data, 1, data.iov_len);
    }
    pthread_mutex_unlock(&lock);
    errno = failure;
    return result;
}

int renameat(int from, const char *old, int to, const char *new) {
    return named(RENAME, from, old, new, SYS_renameat, from, (long)old, to, (long)new);
}

int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }

int unlinkat(int folder, const char *path, int flags) {
    return named(UNLINK, folder, path, "", SYS_unlinkat, folder, (long)path, flags, 0);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
    return named(MKDIR, folder, path, "", SYS_mkdirat, folder, (long)path, mode, 0);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int link(const char *old, const char *new) { return named(UNKNOWN, AT_FDCWD, new, "link", SYS_linkat, AT_FDCWD, (long)old, AT_FDCWD, (long)new); }
