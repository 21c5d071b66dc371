// nulltarget is the floor under every iSCSI target: the least work that satisfies an
// initiator. It hardly negotiates, checks nothing, queues nothing and answers to any name.
//
// build: cc -O2 -o nulltarget nulltarget.c -lpthread
// usage: nulltarget PORT [LUN_MIB [FILE]]
//
// Without FILE it answers out of one buffer and keeps nothing: the limit of this machine's
// loopback and of libiscsi. With FILE a read is a pread and a write a pwrite: the limit for
// a target that keeps its data in a file. It listens on 127.0.0.1 and has no digests.
#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BHS = 48, INBUF = 4 << 20, DATA = 4 << 20, BATCH = 256 };
static uint64_t blocks = 1024ull * 2048; // 1 GiB in 512-byte blocks
static unsigned char *data;
static int file = -1;

static uint32_t get32(const unsigned char *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static void put32(unsigned char *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }

struct conn {
	int fd;
	uint32_t stat_sn, exp_cmd_sn;
	unsigned char head[BATCH][BHS + 64];
	struct iovec iov[BATCH * 2];
	int nhead, niov;
	struct { uint32_t itt, left, off; uint64_t lba; } wr[256]; // writes waiting for solicited data
	unsigned char *scratch; // what the replies of this batch carry, when it comes from the file
	size_t used;
};

static void flush(struct conn *c) {
	struct iovec *v = c->iov;
	int n = c->niov;
	while (n > 0) {
		ssize_t w = writev(c->fd, v, n > 1024 ? 1024 : n);
		if (w <= 0) { n = -1; break; }
		while (n > 0 && (size_t)w >= v->iov_len) { w -= v->iov_len; v++; n--; }
		if (n > 0) { v->iov_base = (char *)v->iov_base + w; v->iov_len -= w; }
	}
	c->nhead = c->niov = 0;
	c->used = 0;
}
static unsigned char *reply(struct conn *c, int op, uint32_t itt, const void *seg, uint32_t len) {
	if (c->nhead == BATCH) flush(c);
	unsigned char *h = c->head[c->nhead++];
	memset(h, 0, BHS);
	h[0] = op; h[1] = 0x80;
	h[5] = len >> 16; h[6] = len >> 8; h[7] = len;
	put32(h + 16, itt);
	put32(h + 20, 0xffffffff);
	put32(h + 28, c->exp_cmd_sn);
	put32(h + 32, c->exp_cmd_sn + 127);
	c->iov[c->niov++] = (struct iovec){ h, BHS };
	if (len) c->iov[c->niov++] = (struct iovec){ (void *)seg, (len + 3) & ~3u };
	return h;
}
static void data_in(struct conn *c, uint32_t itt, const unsigned char *seg, uint32_t len, uint32_t want) {
	uint32_t off = 0, sn = 0;
	while (off < len) {
		uint32_t n = len - off > 262144 ? 262144 : len - off;
		unsigned char *h = reply(c, 0x25, itt, seg + off, n);
		put32(h + 36, sn++);
		put32(h + 40, off);
		off += n;
		if (off < len) h[1] = 0;
		else {
			h[1] = 0x81; // F and S: the status rides on the last Data-In
			put32(h + 24, c->stat_sn++);
			if (want > len) { h[1] |= 2; put32(h + 44, want - len); }
		}
	}
}
static void good(struct conn *c, uint32_t itt) { put32(reply(c, 0x21, itt, NULL, 0) + 24, c->stat_sn++); }
static void r2t(struct conn *c, uint32_t itt, uint32_t off, uint32_t left) {
	unsigned char *h = reply(c, 0x31, itt, NULL, 0);
	put32(h + 20, itt & 255);
	put32(h + 24, c->stat_sn);
	put32(h + 40, off);
	put32(h + 44, left > 262144 ? 262144 : left);
}
static const unsigned char *fetch(struct conn *c, uint64_t lba, uint32_t len) {
	if (file < 0) return data;
	if (c->used + len > DATA) flush(c);
	unsigned char *b = c->scratch + c->used;
	c->used += len;
	if (pread(file, b, len, lba * 512) != len) memset(b, 0, len);
	return b;
}
static void store(uint64_t lba, uint32_t off, const unsigned char *b, uint32_t len) {
	if (file >= 0 && len && pwrite(file, b, len, lba * 512 + off) != len) perror("pwrite");
}
static void command(struct conn *c, const unsigned char *b, const unsigned char *seg, uint32_t len) {
	static unsigned char inquiry[36] = { 0, 0, 6, 2, 31 };
	const unsigned char *cdb = b + 32;
	uint32_t itt = get32(b + 16), want = get32(b + 20);
	uint64_t lba = cdb[0] & 0x80 ? (uint64_t)get32(cdb + 2) << 32 | get32(cdb + 6) : get32(cdb + 2);
	uint64_t cap[4] = { htobe64(blocks - 1), 0, 0, 0 };
	static __thread unsigned char capbuf[32];
	switch (cdb[0]) {
	case 0x12: data_in(c, itt, inquiry, want < 36 ? want : 36, want); return;
	case 0x9e:
		memcpy(capbuf, cap, 32);
		put32(capbuf + 8, 512);
		data_in(c, itt, capbuf, want < 32 ? want : 32, want);
		return;
	case 0x88: case 0x28: if (want > DATA) want = DATA; data_in(c, itt, fetch(c, lba, want), want, want); return;
	case 0x8a: case 0x2a:
		store(lba, 0, seg, len);
		if (want > len) {
			c->wr[itt & 255].lba = lba;
			c->wr[itt & 255].itt = itt;
			c->wr[itt & 255].left = want - len;
			c->wr[itt & 255].off = len;
			if (b[1] & 0x80) r2t(c, itt, len, want - len);
			return;
		}
	}
	good(c, itt);
}
static void login(struct conn *c, const unsigned char *b) {
	static const char sec[] = "AuthMethod=None\0TargetPortalGroupTag=1\0\0\0"; // NULs to spare: a segment goes out padded
	static const char ops[] = "HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0"
		"MaxRecvDataSegmentLength=262144\0MaxBurstLength=262144\0FirstBurstLength=262144\0MaxOutstandingR2T=1\0"
		"DefaultTime2Wait=2\0DefaultTime2Retain=0\0MaxConnections=1\0ErrorRecoveryLevel=0\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0\0\0";
	int csg = b[1] >> 2 & 3;
	unsigned char *h = reply(c, 0x23, get32(b + 16), csg ? ops : sec, csg ? sizeof ops - 3 : sizeof sec - 3);
	h[1] = csg ? 0x87 : 0x81;
	memcpy(h + 8, b + 8, 6);
	h[15] = 1;
	put32(h + 20, 0);
	put32(h + 24, c->stat_sn++);
}
static int pdu(struct conn *c, const unsigned char *b, const unsigned char *seg, uint32_t len) {
	uint32_t itt = get32(b + 16);
	if (!(b[0] & 0x40) && ((b[0] & 0x3f) == 0 || (b[0] & 0x3f) == 1 || (b[0] & 0x3f) == 2 || (b[0] & 0x3f) == 4)) c->exp_cmd_sn = get32(b + 24) + 1;
	switch (b[0] & 0x3f) {
	case 0x03: c->exp_cmd_sn = get32(b + 24); login(c, b); break;
	case 0x01: command(c, b, seg, len); break;
	case 0x05: {
		int i = itt & 255;
		store(c->wr[i].lba, c->wr[i].off, seg, len);
		c->wr[i].left -= len;
		c->wr[i].off += len;
		if (!(b[1] & 0x80)) break;
		if (c->wr[i].left) r2t(c, itt, c->wr[i].off, c->wr[i].left);
		else good(c, itt);
		break;
	}
	case 0x00: if (itt != 0xffffffff) put32(reply(c, 0x20, itt, NULL, 0) + 24, c->stat_sn++); break;
	case 0x06: put32(reply(c, 0x26, itt, NULL, 0) + 24, c->stat_sn++); flush(c); return 0;
	}
	return 1;
}
static void *serve(void *arg) {
	struct conn *c = calloc(1, sizeof *c);
	c->fd = (int)(intptr_t)arg;
	unsigned char *in = malloc(INBUF);
	c->scratch = malloc(DATA);
	size_t have = 0;
	for (;;) {
		ssize_t n = read(c->fd, in + have, INBUF - have);
		if (n <= 0) break;
		have += n;
		size_t at = 0;
		int more = 1;
		while (more && have - at >= BHS) {
			uint32_t len = in[at + 5] << 16 | in[at + 6] << 8 | in[at + 7];
			size_t whole = BHS + in[at + 4] * 4 + ((len + 3) & ~3u);
			if (have - at < whole) break;
			more = pdu(c, in + at, in + at + BHS + in[at + 4] * 4, len);
			at += whole;
		}
		memmove(in, in + at, have - at);
		have -= at;
		if (c->niov) flush(c);
		if (!more) break;
	}
	close(c->fd);
	free(in);
	free(c->scratch);
	free(c);
	return NULL;
}
int main(int argc, char **argv) {
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 3260) };
	if (argc > 2) blocks = strtoull(argv[2], NULL, 0) * 2048;
	if (argc > 3 && ((file = open(argv[3], O_RDWR | O_CREAT, 0600)) < 0 || ftruncate(file, blocks * 512))) { perror(argv[3]); return 1; }
	data = calloc(1, DATA);
	memset(data, 0xa5, DATA);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
	if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 1024)) { perror("bind"); return 1; }
	for (;;) {
		int fd = accept(s, NULL, NULL);
		if (fd < 0) continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		pthread_t t;
		pthread_create(&t, NULL, serve, (void *)(intptr_t)fd);
		pthread_detach(t);
	}
}
