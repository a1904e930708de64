package command

import (
	"strconv"
	"strings"
)

// parsers parse the arguments of each command. They return nil for unknown arguments.
var parsers = map[string]func(args []string) Op{
	"umask":  parseUmask,
	"mkdir":  parseMkdir,
	"dd":     parseDD,
	"mv":     parseMove,
	"rmdir":  onePath(func(p string) Op { return Rmdir{Path: p} }),
	"mktemp": withFlags("-dqp", func(p string) Op { return Mktemp{Parent: p} }),
	"df":     parseFree,
	"ls":     withFlags("-l", func(p string) Op { return List{Path: p} }),
	"scp":    parseSCP,
	"exit": func(args []string) Op {
		if len(args) > 0 {
			return nil
		}
		return Exit{}
	},
}

// isPath reports whether a word can be a path, that is, no option.
func isPath(w string) bool { return w != "" && !strings.HasPrefix(w, "-") }

func onePath(f func(string) Op) func([]string) Op {
	return func(args []string) Op {
		if len(args) != 1 || !isPath(args[0]) {
			return nil
		}
		return f(args[0])
	}
}

func withFlags(flags string, f func(string) Op) func([]string) Op {
	return func(args []string) Op {
		if len(args) != 2 || args[0] != flags {
			return nil
		}
		return onePath(f)(args[1:])
	}
}

func parseUmask(args []string) Op {
	if len(args) != 1 {
		return nil
	}
	if _, err := strconv.ParseUint(args[0], 8, 12); err != nil {
		return nil
	}
	return Umask{}
}

func parseMkdir(args []string) Op {
	parents := len(args) > 0 && args[0] == "-p"
	if parents {
		args = args[1:]
	}
	return onePath(func(p string) Op { return Mkdir{Path: p, Parents: parents} })(args)
}

// ddBlock is the default block size of dd.
const ddBlock = 512

func parseDD(args []string) Op {
	dd := DD{BlockSize: ddBlock}
	var sized bool
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch {
		case key == "of" && value != "" && dd.Path == "":
			dd.Path = value
		case key == "bs" && !sized:
			sized = true
			if dd.BlockSize = blockSize(value); dd.BlockSize <= 0 {
				return nil
			}
		default:
			return nil
		}
	}
	if dd.Path == "" {
		return nil
	}
	return dd
}

// blockSize parses a number of bytes as dd does: 512, 4k, 1M. It returns 0 for anything else.
func blockSize(text string) int64 {
	unit := int64(1)
	for suffix, n := range map[string]int64{"k": 1 << 10, "K": 1 << 10, "M": 1 << 20} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = rest, n
			break
		}
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return int64(n) * unit
}

func parseMove(args []string) Op {
	if len(args) != 2 || !isPath(args[0]) || !isPath(args[1]) {
		return nil
	}
	return Move{From: args[0], To: args[1]}
}

func parseFree(args []string) Op {
	if len(args) != 2 || args[0] != "-P" && args[0] != "--output=avail" {
		return nil
	}
	return onePath(func(p string) Op { return Free{Path: p, POSIX: args[0] == "-P"} })(args[1:])
}

// parseSCP parses the flags that scp gives its remote end.
func parseSCP(args []string) Op {
	var op SCP
	var send bool
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		flag := args[0]
		args = args[1:]
		if flag == "--" {
			break
		}
		switch flag {
		case "-t":
			op.Receive = true
		case "-f":
			send = true
		case "-p":
			op.Times = true
		case "-d":
			op.Directory = true
		case "-r":
			op.Recursive = true
		case "-q", "-v":
			// verbosity
		default:
			return nil
		}
	}
	if op.Receive == send || len(args) != 1 || args[0] == "" {
		return nil
	}
	op.Path = args[0]
	return op
}
