/* Makes one chosen system call that changes a file of one folder fail, and, for a full disk, those after it.

   Loaded with LD_PRELOAD. FAULTS_FOLDER names the folder, FAULTS_CONTROL a file that is mapped by every
   process with this library and by the test: struct control. Calls on anything else are never touched.
   Where there is no room, what only gives space back (unlink, cutting a file) goes on working. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, NO_ROOM, SHORT, FAIL, FAIL_SYNC };          /* control.kind */
enum { META_BYTES = 8192 };                             /* the first two pages of LMDB's file */
enum { WRITES = 1, GROWS = 2, SYNCS = 4, FREES = 8 };   /* what a call is */

struct control {
    uint32_t kind, number, at, tell_free;   /* number: errno; at: which matching call, from 1; tell_free: statvfs tells */
    uint32_t count, fired, room, meta;      /* fired: it has; room: 0 while the disk is full; meta: LMDB's meta page was met */
    uint64_t offset;                        /* of the call that fired, where it has one */
    char call[32], file[216];
};

static struct control *control;
static char folder[4096];
static size_t folder_bytes;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL"), *root = getenv("FAULTS_FOLDER");
    if (path == NULL || root == NULL || strlen(root) >= sizeof folder) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return;
    folder_bytes = strlen(strcpy(folder, root));
    control = map;
}

static int inside(const char *path) {
    return strncmp(path, folder, folder_bytes) == 0 && (path[folder_bytes] == '/' || path[folder_bytes] == 0);
}

static const char *path_of(int fd, char *buffer, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, buffer, size - 1);
    if (got < 0) return NULL;
    buffer[got] = 0;
    return inside(buffer) ? buffer : NULL;
}

/* One thread may be in the middle of LMDB's commit when another meets the full disk. */
static void note_meta(const char *name, const char *path, uint64_t offset) {
    const char *file = strrchr(path, '/');
    if (strcmp(name, "pwrite") == 0 && offset < META_BYTES && strcmp(file, "/data.mdb") == 0) control->meta = 1;
}

/* Decide what becomes of a call: 0 it is made, -1 it fails with errno set, 1 only half of it is written. */
static int decide(int what, const char *name, const char *path, uint64_t offset) {
    if (control == NULL || control->kind == OFF || path == NULL || !inside(path)) return 0;
    uint32_t kind = control->kind;
    int needs_room = what & (WRITES | GROWS);
    if (control->fired && (kind == NO_ROOM || kind == SHORT)) {
        if (!needs_room || control->room) return 0;
        note_meta(name, path, offset);
        errno = (int)control->number;
        return -1;
    }
    int counts = kind == NO_ROOM ? needs_room : kind == SHORT ? what & WRITES : kind == FAIL_SYNC ? what & SYNCS : 1;
    if (!counts || __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST) != control->at) return 0;
    snprintf(control->call, sizeof control->call, "%s", name);
    snprintf(control->file, sizeof control->file, "%s", path + folder_bytes);
    control->offset = offset;
    note_meta(name, path, offset);
    __atomic_store_n(&control->fired, 1, __ATOMIC_SEQ_CST);
    errno = (int)control->number;
    return kind == SHORT ? 1 : -1;
}

static int decide_fd(int what, const char *name, int fd, uint64_t offset) {
    char buffer[4096];
    if (control == NULL || control->kind == OFF) return 0;
    int before = errno;
    const char *path = path_of(fd, buffer, sizeof buffer);
    int verdict = path == NULL ? 0 : decide(what, name, path, offset);
    if (verdict == 0) errno = before;
    return verdict;
}

#define NEXT(name) ({ static __typeof__(&name) next; if (next == NULL) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name); next; })
/* Half of what was asked; of a single byte nothing, which is no short write but an error. */
#define HALF(verdict, size) do { if ((verdict) == 1 && (size) < 2) (verdict) = -1; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    int verdict = decide_fd(WRITES, "write", fd, 0);
    HALF(verdict, size);
    return verdict < 0 ? -1 : NEXT(write)(fd, data, verdict ? size / 2 : size);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t offset) { \
        int verdict = decide_fd(WRITES, "pwrite", fd, (uint64_t)offset); \
        HALF(verdict, size); \
        return verdict < 0 ? -1 : NEXT(name)(fd, data, verdict ? size / 2 : size, offset); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

/* Half of a vector: its first parts, as many bytes as make half. */
static int halved(struct iovec *part, const struct iovec *parts, int count) {
    size_t left = 0;
    int used = 0;
    for (int i = 0; i < count; i++) left += parts[i].iov_len;
    for (left /= 2; used < count && left > 0; used++) {
        part[used] = parts[used];
        if (part[used].iov_len > left) part[used].iov_len = left;
        left -= part[used].iov_len;
    }
    return used;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct iovec part[1024];
    int verdict = decide_fd(WRITES, "writev", fd, 0);
    if (verdict < 0 || count > 1024) return verdict < 0 ? -1 : NEXT(writev)(fd, parts, count);
    return verdict ? NEXT(writev)(fd, part, halved(part, parts, count)) : NEXT(writev)(fd, parts, count);
}

#define PWRITEV(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) { \
        struct iovec part[1024]; \
        int verdict = decide_fd(WRITES, "pwritev", fd, (uint64_t)offset); \
        if (verdict < 0 || count > 1024) return verdict < 0 ? -1 : NEXT(name)(fd, parts, count, offset); \
        return verdict ? NEXT(name)(fd, part, halved(part, parts, count), offset) : NEXT(name)(fd, parts, count, offset); \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

static int cut(const char *name, int fd, off_t size) {
    struct stat status;
    int grows = fstat(fd, &status) == 0 && size > status.st_size;
    return decide_fd(grows ? GROWS : FREES, name, fd, (uint64_t)size);
}

int ftruncate(int fd, off_t size) { return cut("ftruncate", fd, size) ? -1 : NEXT(ftruncate)(fd, size); }
int ftruncate64(int fd, off_t size) { return cut("ftruncate", fd, size) ? -1 : NEXT(ftruncate64)(fd, size); }
int fsync(int fd) { return decide_fd(SYNCS, "fsync", fd, 0) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return decide_fd(SYNCS, "fdatasync", fd, 0) ? -1 : NEXT(fdatasync)(fd); }

/* Only what is not there yet needs anything of the disk. */
static int creates(const char *name, const char *path, int flags) {
    if (!(flags & O_CREAT) || control == NULL || control->kind == OFF) return 0;
    int before = errno, missing = access(path, F_OK) != 0;
    errno = before;
    return missing && decide(GROWS, name, path, 0);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        va_list rest; \
        va_start(rest, flags); \
        if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return creates("open", path, flags) ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        mode_t mode = 0; \
        va_list rest; \
        va_start(rest, flags); \
        if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return creates("open", path, flags) ? -1 : NEXT(name)(directory, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int mkdir(const char *path, mode_t mode) { return creates("mkdir", path, O_CREAT) ? -1 : NEXT(mkdir)(path, mode); }
int rename(const char *old, const char *new) { return decide(GROWS, "rename", new, 0) ? -1 : NEXT(rename)(old, new); }
int unlink(const char *path) { return decide(FREES, "unlink", path, 0) ? -1 : NEXT(unlink)(path); }

static int tells_full(const char *path) {
    return control != NULL && control->kind != OFF && control->tell_free && control->fired && !control->room && inside(path);
}

#define STATVFS(name, type) \
    int name(const char *path, struct type *status) { \
        int result = NEXT(name)(path, status); \
        if (result == 0 && tells_full(path)) status->f_bavail = status->f_bfree = 0; \
        return result; \
    }
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)
