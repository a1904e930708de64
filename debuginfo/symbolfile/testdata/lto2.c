/* See lto1.c. */
__attribute__((always_inline)) inline int unused(volatile int *p) { return *p; }

int far(volatile int *p)
{
	*p += 1;
	return *p * 3;
}
