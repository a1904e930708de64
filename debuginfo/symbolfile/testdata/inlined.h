static inline __attribute__((always_inline)) int deepest(volatile int *p)
{
	*p += 1;
	return *p;
}

static inline __attribute__((always_inline)) int deep(volatile int *p)
{
	int n = deepest(p);

	return n + deepest(p);
}
