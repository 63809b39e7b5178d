/* A PUF device by CUSE: /dev/puf0, or another NAME, with a chip that a seed makes, for tests/vm/puf. Whoever knows the
 * seed has the keys.
 *
 *   puf0 SEED NOISE [NAME]   NOISE: per cent of the cells that a reading gets wrong, others each time, so
 *                        that two readings differ in about twice as many
 *
 * One open is one measurement, as docs/puf-device.md asks. It stays in the foreground; when it ends,
 * the device goes.
 */
#define FUSE_USE_VERSION 31
#include <cuse_lowlevel.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Bytes of a measurement, and most that one read(2) gives: readers have to ask again. */
enum { LENGTH = 512, MOST = 192 };

struct measurement {
    size_t position;
    unsigned char bytes[LENGTH];
};

static uint64_t seed;
static double noise;

/* SplitMix64 (Steele, Lea, Flood 2014): number `index` of the sequence of `start`. */
static uint64_t number(uint64_t start, uint64_t index) {
    uint64_t z = start + (index + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void measure(struct measurement *it) {
    uint64_t fresh, chip = number(seed, 0);
    if (getrandom(&fresh, sizeof fresh, 0) != sizeof fresh) abort();
    for (size_t cell = 0; cell < 8 * LENGTH; cell++) {
        int flips = number(fresh, cell) < noise / 100 * (double)UINT64_MAX;
        int value = (int)(number(chip, cell) >> 63) ^ flips;
        it->bytes[cell / 8] |= (unsigned char)(value << cell % 8);
    }
}

static void puf_open(fuse_req_t request, struct fuse_file_info *file) {
    struct measurement *it = calloc(1, sizeof *it);
    if (it == NULL) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    measure(it);
    file->fh = (uintptr_t)it;
    fuse_reply_open(request, file);
}

/* CUSE says offset 0 at each read: where a reader has got to is ours to know. */
static void puf_read(fuse_req_t request, size_t size, off_t zero, struct fuse_file_info *file) {
    struct measurement *it = (struct measurement *)(uintptr_t)file->fh;
    size_t left = LENGTH - it->position, from = it->position;
    (void)zero;
    if (size > left) size = left;
    if (size > MOST) size = MOST;
    it->position += size;
    fuse_reply_buf(request, (const char *)it->bytes + from, size);
}

static void puf_release(fuse_req_t request, struct fuse_file_info *file) {
    free((void *)(uintptr_t)file->fh);
    fuse_reply_err(request, 0);
}

int main(int argc, char **argv) {
    static const struct cuse_lowlevel_ops ops = {
        .open = puf_open, .read = puf_read, .release = puf_release};
    char name[64];
    const char *names[] = {name};
    struct cuse_info info = {.dev_info_argc = 1, .dev_info_argv = names};
    char *fuse[] = {argv[0], "-f", "-s", NULL};
    if (argc != 3 && argc != 4) {
        fputs("usage: puf0 SEED NOISE [NAME]\n", stderr);
        return 2;
    }
    snprintf(name, sizeof name, "DEVNAME=%s", argc == 4 ? argv[3] : "puf0");
    seed = strtoull(argv[1], NULL, 0);
    noise = strtod(argv[2], NULL);
    return cuse_lowlevel_main(3, fuse, &info, &ops, NULL);
}
