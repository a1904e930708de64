// SPDX-License-Identifier: GPL-2.0
/*
 * crashpatch: a live patch for the module crashmod. Its function has the name of the one that it replaces, as kpatch-build
 * makes them, and crashes.
 */
#include <linux/livepatch.h>
#include <linux/module.h>

/* The compiler must not know what is in it. */
static long *volatile no_weight;

static __attribute__((noipa)) long weigh_crate(long arg)
{
	return *no_weight + arg;
}

static struct klp_func functions[] = {
	{ .old_name = "weigh_crate", .new_func = weigh_crate },
	{}
};

static struct klp_object objects[] = {
	{ .name = "crashmod", .funcs = functions },
	{}
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init crashpatch_init(void)
{
	return klp_enable_patch(&patch);
}

/* The kernel wants one. It cannot be called while the patch is enabled. */
static void __exit crashpatch_exit(void)
{
}

module_init(crashpatch_init);
module_exit(crashpatch_exit);
MODULE_DESCRIPTION("a live patch that crashes, for tests of crash dumps");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
