// SPDX-License-Identifier: GPL-2.0
/*
 * crashmod: a kernel module of the crash lab that brings its kernel down.
 *
 * Write the name of a kind to /proc/crashmod. Each kind has its own functions, called through two more, so that a
 * backtrace shows which kind it was and has frames to compare. The compiler must neither inline nor clone them, and
 * must not turn their calls into jumps: hence DEEP, and results that are still used after the call.
 */
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#define DEEP __attribute__((noipa))

/* Two callers for a function that crashes. */
#define CHAIN(kind)                                  \
	static DEEP long kind##_middle(long arg)     \
	{                                            \
		long result = kind(arg);             \
		barrier();                           \
		return result + 1;                   \
	}                                            \
	static DEEP long kind##_outer(long arg)      \
	{                                            \
		long result = kind##_middle(arg + 1); \
		barrier();                           \
		return result * 3;                   \
	}

struct crate {
	long room[3];
	long weight; /* 24 bytes from the start */
	long (*weigh)(long arg);
};

/* The compiler must not know what is in them. */
static struct crate *volatile no_crate;
static volatile long zero;

static DEEP long null_read(long arg)
{
	return no_crate->weight + arg;
}
CHAIN(null_read)

static DEEP long null_write(long arg)
{
	no_crate->weight = arg;
	return arg;
}
CHAIN(null_write)

static DEEP long null_call(long arg)
{
	long (*weigh)(long arg) = (void *)zero;

	return weigh(arg) + 1;
}
CHAIN(null_call)

/* An address between the kernel's areas, where no kernel of the lab maps anything. */
static DEEP long wild_pointer(long arg)
{
	return *(volatile long *)(0xfffffbad00000000 + zero) + arg;
}
CHAIN(wild_pointer)

static const long sealed = 42;

static DEEP long readonly_write(long arg)
{
	*(volatile long *)&sealed = arg;
	return arg;
}
CHAIN(readonly_write)

static long data_words[4] = { 0x90, 0x90, 0xc3 };

static DEEP long nx_call(long arg)
{
	long (*code)(long arg) = (void *)((char *)data_words + zero);

	return code(arg) + 1;
}
CHAIN(nx_call)

static DEEP long divide_error(long arg)
{
	return arg / zero;
}
CHAIN(divide_error)

static DEEP long invalid_opcode(long arg)
{
	if (!zero)
		asm volatile(".byte 0x0f, 0x0b"); /* ud2 without an entry in the table of BUGs */
	return arg;
}
CHAIN(invalid_opcode)

static DEEP long bug(long arg)
{
	BUG_ON(arg != zero);
	return arg;
}
CHAIN(bug)

static DEEP long warn(long arg)
{
	WARN(arg != zero, "crashmod: crate %ld is too heavy\n", arg);
	return arg;
}
CHAIN(warn)

static DEEP long refcount(long arg)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
	return arg + refcount_read(&count);
}
CHAIN(refcount)

static DEEP long panic_call(long arg)
{
	if (arg != zero)
		panic("crashmod: crate %ld fell down", arg);
	return arg;
}
CHAIN(panic_call)

static DEEP long gp_fault(long arg)
{
	return *(volatile long *)(0xdead0000000000f0 + zero) + arg;
}
CHAIN(gp_fault)

static DEEP long list_corruption(long arg)
{
	LIST_HEAD(head);
	struct list_head first, stranger;

	list_add(&first, &head);
	first.next = &stranger;
	stranger.prev = &stranger;
	stranger.next = &stranger;
	list_del(&first);
	return arg;
}
CHAIN(list_corruption)

static DEEP long usercopy(long arg)
{
	/* From a user address that is never reached into the middle of the kernel's text. */
	return copy_from_user((void *)((unsigned long)schedule + zero), (void __user *)0x1000, 64 + zero) + arg;
}
CHAIN(usercopy)

static DEEP long stack_overflow(long arg)
{
	volatile char room[400];

	memset((void *)room, (int)arg, sizeof(room));
	if (arg == zero)
		return arg;
	return stack_overflow(arg + 1) + room[arg & 0xff];
}
CHAIN(stack_overflow)

static DEEP long stack_smash(long arg)
{
	char room[24];
	volatile char *p = room;
	long i;

	for (i = 0; i < 48 + zero; i++)
		p[i] = 'x';
	return arg + room[arg & 7];
}
CHAIN(stack_smash)

static DEEP long fortify(long arg)
{
	char room[24];

	memset(room, 'x', 48 + zero); /* the library knows the size of room */
	return arg + room[arg & 7];
}
CHAIN(fortify)

/* Spins until somebody else ends the machine: a watchdog, an NMI. The host waits for the line. */
static DEEP long spin(long arg)
{
	preempt_disable();
	pr_err("crashmod: spins\n");
	while (!zero)
		cpu_relax();
	preempt_enable();
	return arg;
}
CHAIN(spin)

/* Waits for what never happens. */
static DEEP long hung_task(long arg)
{
	DECLARE_COMPLETION_ONSTACK(never);

	wait_for_completion(&never);
	return arg;
}
CHAIN(hung_task)

/* The contexts in which a pointer is read that is NULL. */

static void hardirq_handler(struct irq_work *work)
{
	zero = null_read_outer(1);
}
static struct irq_work hardirq_work;

static DEEP long hardirq(long arg)
{
	init_irq_work(&hardirq_work, hardirq_handler);
	irq_work_queue(&hardirq_work);
	return spin(arg);
}
CHAIN(hardirq)

static void ipi_handler(void *info)
{
	zero = null_read_outer(2);
}

static DEEP long ipi(long arg)
{
	return smp_call_function_single(1, ipi_handler, NULL, 1) + arg;
}
CHAIN(ipi)

static void softirq_handler(struct timer_list *timer)
{
	zero = null_read_outer(3);
}
static struct timer_list softirq_timer;

static DEEP long softirq(long arg)
{
	timer_setup(&softirq_timer, softirq_handler, 0);
	mod_timer(&softirq_timer, jiffies + 2);
	return hung_task(arg);
}
CHAIN(softirq)

static void workqueue_handler(struct work_struct *work)
{
	zero = null_read_outer(4);
}
static DECLARE_WORK(workqueue_work, workqueue_handler);

static DEEP long workqueue(long arg)
{
	schedule_work(&workqueue_work);
	return hung_task(arg);
}
CHAIN(workqueue)

static int kthread_main(void *data)
{
	zero = null_read_outer(5);
	return 0;
}

static DEEP long kthread(long arg)
{
	kthread_run(kthread_main, NULL, "crashmod/%ld", arg);
	return hung_task(arg);
}
CHAIN(kthread)

/*
 * A tracer of one function, which therefore calls a trampoline of its own. Whoever calls the function crashes: the guest has a
 * BPF program do so.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define ftrace_regs pt_regs
#endif
static void ftrace_handler(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *regs)
{
	zero = null_read_outer(6);
}
static struct ftrace_ops ftrace_handler_ops = { .func = ftrace_handler };

static DEEP long bpf(long arg)
{
	char helper[] = "bpf_user_rnd_u32";

	if (ftrace_set_filter(&ftrace_handler_ops, helper, strlen(helper), 1))
		return -1;
	return register_ftrace_function(&ftrace_handler_ops);
}

/* A function whose return a kretprobe follows, called by one whose return the guest has the function graph tracer follow. */
static DEEP long traced(long arg)
{
	return null_read_outer(arg) + 1;
}
CHAIN(traced)

static int traced_handler(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	return 0;
}
static struct kretprobe traced_probe = { .handler = traced_handler };

static DEEP long traced_run(long arg)
{
	traced_probe.kp.addr = (void *)traced_middle;
	if (register_kretprobe(&traced_probe))
		return -1;
	return traced_outer(arg);
}

/* A function that the live patch crashpatch replaces. */
static DEEP long weigh_crate(long arg)
{
	return arg + zero;
}
CHAIN(weigh_crate)

/*
 * Takes away the operations of a file's page cache, as a driver does that writes where it should not. Whoever reads the file
 * crashes, in code of the kernel's own: the guest does so.
 */
static const struct address_space_operations *volatile no_operations;

static DEEP long page_cache(long arg)
{
	struct file *file = filp_open("/page-cache/file", O_RDONLY, 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	file->f_mapping->a_ops = no_operations;
	return filp_close(file, NULL);
}

static const struct {
	const char *name;
	long (*run)(long arg);
} kinds[] = {
	{ "null-read", null_read_outer },
	{ "null-write", null_write_outer },
	{ "null-call", null_call_outer },
	{ "wild-pointer", wild_pointer_outer },
	{ "readonly-write", readonly_write_outer },
	{ "nx-call", nx_call_outer },
	{ "divide-error", divide_error_outer },
	{ "invalid-opcode", invalid_opcode_outer },
	{ "bug", bug_outer },
	{ "warn", warn_outer },
	{ "refcount", refcount_outer },
	{ "panic", panic_call_outer },
	{ "gp-fault", gp_fault_outer },
	{ "list-corruption", list_corruption_outer },
	{ "usercopy", usercopy_outer },
	{ "stack-overflow", stack_overflow_outer },
	{ "stack-smash", stack_smash_outer },
	{ "fortify", fortify_outer },
	{ "spin", spin_outer },
	{ "hung-task", hung_task_outer },
	{ "hardirq", hardirq_outer },
	{ "ipi", ipi_outer },
	{ "softirq", softirq_outer },
	{ "workqueue", workqueue_outer },
	{ "kthread", kthread_outer },
	{ "bpf", bpf },
	{ "traced", traced_run },
	{ "livepatch", weigh_crate_outer },
	{ "page-cache", page_cache },
};

static ssize_t crashmod_write(struct file *file, const char __user *text, size_t len, loff_t *off)
{
	char name[32] = "";
	size_t i;

	if (len >= sizeof(name) || copy_from_user(name, text, len))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(name, kinds[i].name))
			return kinds[i].run(i) < 0 ? -EIO : (ssize_t)len;
	return -ENOENT;
}

static const struct proc_ops crashmod_ops = { .proc_write = crashmod_write };

static int __init crashmod_init(void)
{
	return proc_create("crashmod", 0200, NULL, &crashmod_ops) ? 0 : -ENOMEM;
}

static void __exit crashmod_exit(void)
{
	remove_proc_entry("crashmod", NULL);
}

module_init(crashmod_init);
module_exit(crashmod_exit);
MODULE_DESCRIPTION("brings the kernel down, for tests of crash dumps");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
