/* Functions that are inlined in one another, in two sections that both begin at offset 0. See README.md. */
#include "inlined.h"

#define in_section(name) __attribute__((section(name), noinline, used))

in_section(".text") int outer(volatile int *p)
{
	*p = 7;
	return deep(p) + 1;
}

in_section(".init.text") int setup(volatile int *p)
{
	*p = 9;
	return deepest(p);
}

in_section(".text") void _stext(volatile int *p)
{
	*p = outer(p) + setup(p);
}
