package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage/reports"
)

func newStatus(a *app) *cobra.Command {
	var w statusWatch
	cmd := &cobra.Command{
		Use: "status", GroupID: groupServer, Args: cobra.NoArgs,
		Short: "Show what the running server does: sessions, queue, room",
		Long: `Ask the running server of the data directory, over its local socket. Print its
sessions with the time that each still takes, which of them wait and why, the dumps whose
senders are gone and until when they are waited for (then they are sealed with what they
have), the free disk space, and counts since the start. With --watch, do so again at each
interval until Ctrl-C; a pipe gets one block after another, with --json one line each.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(cmd.Flags()); err != nil {
				return err
			}
			return a.status(cmd.Context(), &w)
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().StringVar(&w.socket, "socket", "", "socket of the server (default "+socketName+" in the data directory)")
	cmd.Flags().BoolVarP(&w.on, "watch", "w", false, "print again at each interval, until Ctrl-C")
	w.every = cli.DurationValue(2 * time.Second)
	cmd.Flags().Var(&w.every, "interval", "time between two prints of --watch, at least 100ms")
	return cmd
}

// serverStatus is the document of "status --json".
type serverStatus struct {
	receiver.Status
	Reports *reports.Status `json:"reports,omitempty"` // nil if the server makes none
	Watch   []watch.Status  `json:"watch,omitempty"`   // of the watched directories
}

// statusOf returns what a server and its reporter, which may be nil, do now.
func statusOf(ctx context.Context, server *receiver.Server, r *reporter, w *watch.Watcher) serverStatus {
	st := serverStatus{Status: server.Status(ctx), Watch: w.Status()}
	if r != nil {
		now := r.Status()
		st.Reports = &now
	}
	return st
}

func (a *app) status(ctx context.Context, w *statusWatch) error {
	path, err := a.socketPath(w.socket)
	if err != nil {
		return err
	}
	st, err := askStatus(ctx, path)
	if err != nil {
		return err
	}
	if w.on {
		return a.watchStatus(ctx, path, w, st)
	}
	if a.json {
		return cli.JSON(a.stdio.Out, st)
	}
	return printStatus(a.stdio.Out, st)
}

// printStatus prints what a server does.
func printStatus(out io.Writer, st *serverStatus) error {
	if err := printServer(out, st); err != nil {
		return err
	}
	if err := printSessions(out, &st.Status); err != nil {
		return err
	}
	return printGone(out, &st.Status)
}

// printServer prints the facts of the whole server.
func printServer(out io.Writer, st *serverStatus) error {
	t := cli.NewTable(out)
	l, m, s := &st.Limits, &st.Memory, &st.Totals
	t.Row("server", fmt.Sprintf("%s, up %s", st.Tool, cli.Duration(st.Now.Sub(st.Started))))
	t.Row("sending", fmt.Sprintf("%d of %d%s", l.ActiveUsed, l.Active, limit(", each host at most ", l.HostSessions > 0, strconv.Itoa(l.HostSessions))))
	t.Row("waiting", strconv.Itoa(len(st.Queue)))
	t.Row("connections", fmt.Sprintf("%d of %d", l.Connected, l.Connections))
	t.Row("space", space(&st.Space)+limit(", each host at most ", l.HostBytes > 0, bytesize.Format(l.HostBytes))+limit(", at most ", l.HostDumps > 0, strconv.Itoa(l.HostDumps)+" dumps of each host"))
	t.Row("memory", fmt.Sprintf("%s; hello and waiting use %s of %s; window %s each", bytesize.Format(m.Limit), bytesize.Format(m.HelloUsed), bytesize.Format(m.Hello), bytesize.Format(m.Window)))
	t.Row("reports", reportsText(st.Reports))
	for i := range st.Watch {
		t.Row("watched", watchText(&st.Watch[i]))
	}
	t.Row("rules", strconv.Itoa(l.Rules))
	t.Row("since start", fmt.Sprintf("%d sessions, %s received; dumps: %d complete, %d partial, %d log only; %d broken off%s",
		s.Sessions, bytesize.Format(s.Bytes), s.Complete, s.Partial, s.LogOnly, s.BrokenOff, refusals(s.Refused)))
	return t.Flush()
}

// reportsText says how many reports are behind, and why.
func reportsText(r *reports.Status) string {
	if r == nil {
		return "none are made: report_jobs is 0"
	}
	return fmt.Sprintf("%d waiting, %d of older versions to make again, %d tried again later, %d dumps cannot be read", r.Waiting, r.Renewals, r.Retrying, r.Failed)
}

// watchText says what a watched directory has.
func watchText(w *watch.Status) string {
	if w.Error != "" {
		return fmt.Sprintf("%s cannot be read: %s", w.Path, w.Error)
	}
	return fmt.Sprintf("%s: %d taken since start, %d arriving, %d that cannot be taken", w.Path, w.Taken, w.Arriving, w.Failing)
}

// limit returns text and value if there is a limit.
func limit(text string, is bool, value string) string {
	if !is {
		return ""
	}
	return text + value
}

func space(s *receiver.SpaceStatus) string {
	switch {
	case s.Error != "":
		return "not known: " + s.Error
	case s.Total == 0:
		return "no bound"
	}
	return fmt.Sprintf("%s free of %s, reserve %s, dumps under way need %s", bytesize.Format(s.Free), bytesize.Format(s.Total), bytesize.Format(s.Reserve), bytesize.Format(s.Reserved))
}

func refusals(byCode map[string]uint64) string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(byCode)) {
		parts = append(parts, fmt.Sprintf("%d %s", byCode[code], code))
	}
	if len(parts) == 0 {
		return ""
	}
	return "; refused: " + strings.Join(parts, ", ")
}

// printSessions prints the active sessions, oldest first, then the queue in order.
func printSessions(out io.Writer, st *receiver.Status) error {
	if len(st.Sessions) == 0 {
		_, err := fmt.Fprintln(out, "\nno sessions")
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	list := slices.Clone(st.Sessions)
	slices.SortStableFunc(list, func(a, b receiver.SessionStatus) int { return a.Place - b.Place })
	t := cli.NewTable(out, "HOST", "ID", "PEER", "VIA", "STATE", "DONE", "PAGES", "RATE", "LEFT", "FOR", "REASON").
		Spare("PEER", "VIA", "PAGES", "FOR", "ID", "RATE", "REASON")
	for i := range list {
		s := &list[i]
		state := s.State
		if s.Place > 0 {
			state = fmt.Sprintf("%s, place %d of %d", state, s.Place, len(st.Queue))
		}
		t.Row(s.Host, s.ID[:min(shownID, len(s.ID))], s.Peer, s.Transport, state, percent(s.Pages, s.Planned), pageCount(s.Pages, s.Planned),
			bytesize.Format(uint64(s.PageRate*float64(s.PageSize)))+"/s", left(s), cli.Duration(st.Now.Sub(s.Since)), cli.Clip(s.Reason, 160))
	}
	return t.Flush()
}

// left is how long the dump of a session still takes.
func left(s *receiver.SessionStatus) string {
	if s.LeftMsec == 0 {
		return "-"
	}
	return cli.Duration((time.Duration(s.LeftMsec) * time.Millisecond).Round(time.Second))
}

// printGone prints the dumps whose senders are gone.
func printGone(out io.Writer, st *receiver.Status) error {
	if len(st.Gone) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(out, "\nwaiting for senders that are gone:"); err != nil {
		return err
	}
	t := cli.NewTable(out, "HOST", "ID", "DONE", "PAGES", "GONE FOR", "SEALED IN", "AT").Spare("AT", "PAGES", "ID")
	for i := range st.Gone {
		g := &st.Gone[i]
		t.Row(g.Host, g.ID[:min(shownID, len(g.ID))], percent(g.Pages, g.Planned), pageCount(g.Pages, g.Planned), cli.Duration(st.Now.Sub(g.Since).Truncate(time.Second)),
			cli.Duration(max(0, g.Until.Sub(st.Now)).Truncate(time.Second)), cli.Time(g.Until))
	}
	return t.Flush()
}

// percent formats how much of the planned pages is there.
func percent(pages, planned uint64) string {
	if planned == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", min(100, pages*100/planned))
}

// pageCount formats how many of the planned pages are there, if it is known how many were planned.
func pageCount(pages, planned uint64) string {
	if planned == 0 {
		return strconv.FormatUint(pages, 10)
	}
	return fmt.Sprintf("%d/%d", pages, planned)
}
