// iscsiload drives an iSCSI target through libiscsi and says what the initiator saw.
//
// build: cc -O2 -o iscsiload iscsiload.c -liscsi -lpthread     (Debian: libiscsi-dev)
// usage: iscsiload -u iscsi://HOST:PORT/IQN/LUN [-m randread|randwrite|randrw|read|write|write-verify]
//                  [-b BYTES] [-q DEPTH] [-s SESSIONS] [-t SECONDS] [-z SPAN_BYTES] [-D] [-w]
//                  [-x cold|sync|unmap [-y DEPTH]]
//
// Each session is a thread with a TCP connection of its own, and a part of the span of its
// own where blocks are taken in turn. randrw reads 7 of 10; write-verify stamps every block
// and reads it back. With -t 0 each session sends DEPTH commands and no more. -D has headers
// carry a digest; data digests are not in libiscsi before 1.20. -w keeps the sessions, idle,
// until standard input ends. -x has DEPTH more commands (1) under way in each session, on the
// second half of its part, while the others stay in the first: random reads, a random write
// and a SYNCHRONIZE CACHE in turn, or an UNMAP of 1 MiB. Only "beside" counts them.
//
// One line of JSON on standard output when the last command is answered; the exit status is
// 1 after any I/O error.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum mode { RANDREAD, RANDWRITE, RANDRW, SEQREAD, SEQWRITE, VERIFY };
static const char *url, *mode_name = "randread";
static enum mode mode = RANDREAD;
static int block = 4096, depth = 32, sessions = 1, seconds = 5, digests, keep;
static uint64_t span;
static enum beside { NOTHING, COLD, SYNC, UNMAP } beside;
static int beside_depth = 1;

// Latencies are counted in rows of 64 columns: microseconds in the first, twice as coarse in each next.
#define BUCKETS 4096
struct session {
	pthread_t thread;
	int id, error, inflight, lun;
	struct iscsi_context *iscsi;
	uint64_t ops, beside, seed, next, blocks_per_op, span_ops, sector, hist[BUCKETS];
	uint64_t end_ns;
	char err[256];
};
struct op {
	struct session *s;
	unsigned char *buf;
	uint64_t start, lba, gen;
	int is_read, beside, turn;
	struct scsi_iovec iov;
	struct unmap_list range;
};

static uint64_t now_ns(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}
static uint64_t rnd(uint64_t *s) { // xorshift64*
	*s ^= *s >> 12; *s ^= *s << 25; *s ^= *s >> 27;
	return *s * 2685821657736338717ull;
}
static int bucket(uint64_t us) {
	if (us < 64) return (int)us;
	int row = 63 - __builtin_clzll(us) - 5;
	int i = row * 64 + (int)((us >> row) & 63);
	return i < BUCKETS ? i : BUCKETS - 1;
}
static uint64_t bucket_us(int i) { return i < 64 ? (uint64_t)i : (uint64_t)((i % 64)) << (i / 64); }

static void submit(struct op *op);
static void fail(struct session *s, const char *what) {
	if (!s->error) snprintf(s->err, sizeof s->err, "%s: %s", what, iscsi_get_error(s->iscsi));
	s->error = 1;
}
static void done(struct iscsi_context *iscsi, int status, void *data, void *priv) {
	struct op *op = priv;
	struct session *s = op->s;
	(void)iscsi;
	s->inflight--;
	if (status != SCSI_STATUS_GOOD) fail(s, op->beside ? "beside" : op->is_read ? "read" : "write");
	else if (op->beside) s->beside++;
	else {
		s->ops++;
		s->hist[bucket((now_ns() - op->start) / 1000)]++;
		if (mode == VERIFY && op->is_read)
			for (int i = 0; i < block; i += 512) {
				uint64_t *w = (uint64_t *)(op->buf + i);
				if (w[0] != op->lba * s->sector + i || w[1] != op->gen) { fail(s, "MISCOMPARE"); break; }
			}
	}
	scsi_free_scsi_task(data);
	if (!s->error && now_ns() < s->end_ns) submit(op);
	else op->start = 0;
}
static void submit(struct op *op) {
	struct session *s = op->s;
	struct scsi_task *t = NULL;
	int again = mode == VERIFY && op->start && !op->is_read; // read back what was just written
	if (again) { op->is_read = 1; memset(op->buf, 0, block); }
	else if (op->beside) {
		op->lba = ((uint64_t)s->id * s->span_ops + s->span_ops / 2 + rnd(&s->seed) % (s->span_ops / 2)) * s->blocks_per_op;
		op->is_read = beside == COLD;
	} else {
		uint64_t slot, slots = beside ? s->span_ops / 2 : s->span_ops;
		if (mode == SEQREAD || mode == SEQWRITE || mode == VERIFY) slot = s->next++ % slots;
		else slot = rnd(&s->seed) % slots;
		op->lba = ((uint64_t)s->id * s->span_ops + slot) * s->blocks_per_op;
		op->is_read = mode == RANDREAD || mode == SEQREAD || (mode == RANDRW && rnd(&s->seed) % 10 < 7);
		if (mode == VERIFY) {
			op->gen = rnd(&s->seed);
			for (int i = 0; i < block; i += 512) {
				uint64_t *w = (uint64_t *)(op->buf + i);
				w[0] = op->lba * s->sector + i; w[1] = op->gen;
			}
		}
	}
	op->start = now_ns();
	op->iov.iov_base = op->buf;
	op->iov.iov_len = block;
	if (op->beside && beside == UNMAP) {
		uint64_t all = 1048576 / s->sector, end = (uint64_t)(s->id + 1) * s->span_ops * s->blocks_per_op;
		op->range.num = (uint32_t)(end - op->lba < all ? end - op->lba : all);
		op->range.lba = op->lba;
		t = iscsi_unmap_task(s->iscsi, s->lun, 0, 0, &op->range, 1, done, op);
	} else if (op->beside && beside == SYNC && op->turn++ % 2) {
		t = iscsi_synchronizecache16_task(s->iscsi, s->lun, 0, 0, 0, 0, done, op);
	} else if (op->is_read) {
		t = iscsi_read16_task(s->iscsi, s->lun, op->lba, block, (int)s->sector, 0, 0, 0, 0, 0, done, op);
		if (t) scsi_task_set_iov_in(t, &op->iov, 1);
	} else {
		t = iscsi_write16_task(s->iscsi, s->lun, op->lba, NULL, block, (int)s->sector, 0, 0, 0, 0, 0, done, op);
		if (t) scsi_task_set_iov_out(t, &op->iov, 1);
	}
	if (!t) { fail(s, "submit"); return; }
	s->inflight++;
}
static void *run(void *arg) {
	struct session *s = arg;
	int all = depth + (beside ? beside_depth : 0);
	struct op *ops = calloc(all, sizeof *ops);
	for (int i = 0; i < all; i++) {
		ops[i].s = s;
		ops[i].beside = i >= depth;
		if (posix_memalign((void **)&ops[i].buf, 4096, block)) abort();
		memset(ops[i].buf, 0x5a ^ i, block);
	}
	s->end_ns = now_ns() + seconds * 1000000000ull;
	for (int i = 0; i < all && !s->error; i++) submit(&ops[i]);
	uint64_t give_up = s->end_ns + 30 * 1000000000ull;
	while (s->inflight > 0 && now_ns() < give_up) {
		struct pollfd p = { .fd = iscsi_get_fd(s->iscsi), .events = (short)iscsi_which_events(s->iscsi) };
		if (poll(&p, 1, 1000) < 0 && errno != EINTR) { fail(s, "poll"); break; }
		if (iscsi_service(s->iscsi, p.revents) < 0) { fail(s, "service"); break; }
	}
	if (s->inflight > 0 && !s->error) fail(s, "commands never answered");
	return NULL;
}
int main(int argc, char **argv) {
	int c;
	while ((c = getopt(argc, argv, "u:m:b:q:s:t:z:Dwx:y:")) != -1) switch (c) {
	case 'u': url = optarg; break;
	case 'm': mode_name = optarg; break;
	case 'b': block = atoi(optarg); break;
	case 'q': depth = atoi(optarg); break;
	case 's': sessions = atoi(optarg); break;
	case 't': seconds = atoi(optarg); break;
	case 'z': span = strtoull(optarg, NULL, 0); break;
	case 'D': digests = 1; break;
	case 'w': keep = 1; break;
	case 'x': beside = !strcmp(optarg, "cold") ? COLD : !strcmp(optarg, "sync") ? SYNC : !strcmp(optarg, "unmap") ? UNMAP : NOTHING;
		if (!beside) { fprintf(stderr, "usage: see the top of iscsiload.c\n"); return 2; }
		break;
	case 'y': beside_depth = atoi(optarg); break;
	default: return 2;
	}
	const char *names[] = { "randread", "randwrite", "randrw", "read", "write", "write-verify" };
	int known = 0;
	for (int i = 0; i < 6; i++) if (!strcmp(mode_name, names[i])) { mode = i; known = 1; }
	if (!url || !known) { fprintf(stderr, "usage: see the top of iscsiload.c\n"); return 2; }
	struct session *all = calloc(sessions, sizeof *all);
	for (int i = 0; i < sessions; i++) {
		struct session *s = &all[i];
		char name[80];
		snprintf(name, sizeof name, "iqn.2026-11.io.csi-ietd:load-%d-%d", (int)getpid(), i);
		s->id = i; s->seed = 0x9e3779b97f4a7c15ull * (i + 1);
		s->iscsi = iscsi_create_context(name);
		struct iscsi_url *u = iscsi_parse_full_url(s->iscsi, url);
		if (!u) { fprintf(stderr, "%s\n", iscsi_get_error(s->iscsi)); return 2; }
		s->lun = u->lun;
		if (u->user[0]) iscsi_set_initiator_username_pwd(s->iscsi, u->user, u->passwd);
		iscsi_set_targetname(s->iscsi, u->target);
		iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
		iscsi_set_header_digest(s->iscsi, digests ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
		iscsi_set_noautoreconnect(s->iscsi, 1);
		if (iscsi_full_connect_sync(s->iscsi, u->portal, u->lun)) { fprintf(stderr, "connect: %s\n", iscsi_get_error(s->iscsi)); return 1; }
		struct scsi_task *t = iscsi_readcapacity16_sync(s->iscsi, s->lun);
		struct scsi_readcapacity16 *rc = t && t->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(t) : NULL;
		if (!rc) { fprintf(stderr, "READ CAPACITY(16): %s\n", iscsi_get_error(s->iscsi)); return 1; }
		uint64_t bytes = (rc->returned_lba + 1) * rc->block_length;
		if (span && span < bytes) bytes = span;
		s->sector = rc->block_length;
		s->blocks_per_op = block / rc->block_length;
		s->span_ops = bytes / sessions / block;
		scsi_free_scsi_task(t);
		iscsi_destroy_url(u);
		if (s->span_ops < (beside ? 2 : 1)) { fprintf(stderr, "the LUN is too small\n"); return 2; }
	}
	uint64_t t0 = now_ns();
	for (int i = 0; i < sessions; i++) pthread_create(&all[i].thread, NULL, run, &all[i]);
	for (int i = 0; i < sessions; i++) pthread_join(all[i].thread, NULL);
	double secs = (now_ns() - t0) / 1e9;
	uint64_t ops = 0, others = 0, hist[BUCKETS] = { 0 }, seen = 0;
	int errors = 0;
	for (int i = 0; i < sessions; i++) {
		ops += all[i].ops;
		others += all[i].beside;
		for (int b = 0; b < BUCKETS; b++) hist[b] += all[i].hist[b];
		if (all[i].error) { errors++; fprintf(stderr, "session %d: %s\n", i, all[i].err); }
	}
	double q[] = { .5, .99, .999 };
	uint64_t lat[3] = { 0 };
	for (int b = 0, k = 0; b < BUCKETS && k < 3; b++) {
		seen += hist[b];
		while (k < 3 && seen >= q[k] * ops && ops) lat[k++] = bucket_us(b);
	}
	printf("{\"mode\":\"%s\",\"bs\":%d,\"depth\":%d,\"sessions\":%d,\"ops\":%llu,\"iops\":%.0f,\"mib_s\":%.1f,\"p50_us\":%llu,\"p99_us\":%llu,\"p999_us\":%llu,\"beside\":%.0f,\"errors\":%d}\n",
	       mode_name, block, depth, sessions, (unsigned long long)ops, ops / secs, ops / secs * block / 1048576,
	       (unsigned long long)lat[0], (unsigned long long)lat[1], (unsigned long long)lat[2], others / secs, errors);
	fflush(stdout);
	char ignored[64];
	while (keep && read(0, ignored, sizeof ignored) > 0) continue;
	return errors ? 1 : 0;
}
