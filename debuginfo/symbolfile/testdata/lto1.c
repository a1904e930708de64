/* A function of lto2.c is inlined here: its entry lies in another compile unit. See README.md. */
extern int far(volatile int *p);

__attribute__((noinline, used)) int outer(volatile int *p)
{
	*p = 7;
	return far(p) + 1;
}

__attribute__((noinline, used)) void _stext(volatile int *p)
{
	*p = outer(p);
}
