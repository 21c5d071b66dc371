// Two threads that take turns find in their vector registers what each of them put there.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define CLOBBERS(n) , "xmm" #n
#define LOAD_YMM(n) "vmovdqu " #n "*32(%0), %%ymm" #n "\n"
#define KEEP_YMM(n) "vmovdqu %%ymm" #n ", " #n "*32(%1)\n"
#define LOAD_XMM(n) "movdqu " #n "*32(%0), %%xmm" #n "\n"
#define KEEP_XMM(n) "movdqu %%xmm" #n ", " #n "*32(%1)\n"
#define YIELD "mov $24, %%eax\nsyscall\n" // sched_yield, in which the other thread has its turn

static int avx;
static long wrong;

static void *run(void *arg) {
	uint64_t in[64], out[64];
	for (int round = 0; round < 20000; round++) {
		for (int i = 0; i < 64; i++)
			in[i] = (uintptr_t)arg * 0x9e3779b97f4a7c15ull + round * 64 + i;
		memcpy(out, in, sizeof out); // SSE keeps half of each
		out[0] = ~in[0];
		if (avx)
			__asm__ volatile(EACH(LOAD_YMM) YIELD EACH(KEEP_YMM) : : "r"(in), "r"(out) : "rax", "rcx", "r11", "memory" EACH(CLOBBERS));
		else
			__asm__ volatile(EACH(LOAD_XMM) YIELD EACH(KEEP_XMM) : : "r"(in), "r"(out) : "rax", "rcx", "r11", "memory" EACH(CLOBBERS));
		if (memcmp(in, out, sizeof in))
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(void) {
	pthread_t threads[2];
	avx = __builtin_cpu_supports("avx");
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, run, (void *)(i + 1));
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("%s: %ld wrong\n", avx ? "AVX" : "SSE", wrong);
	return wrong != 0;
}
