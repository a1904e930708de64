package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/sender/arm"
)

// statusOf is a shell function that prints what status says, and its exit code.
const statusOf = "status_of() { code=0; corehaul-send status --json \"$@\" || code=$?; echo \"exit code $code\"; }\n"

// A wrongCase is something that goes wrong on a machine. The script does it and calls status_of, and may mend it then.
type wrongCase struct {
	name, script string
	// code is the exit code of status, and want are the problems that it finds.
	code string
	want []arm.Code
}

// otherKdump gives a machine that is armed the kdump of another distribution, which takes its place.
var otherKdump = wrongCase{
	"kdump of another distribution", `cat > /etc/systemd/system/kdump.service <<'END'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'kexec -p /boot/vmlinuz-$(uname -r) --append=other'
ExecStop=/sbin/kexec -p -u
[Install]
WantedBy=multi-user.target
END
corehaul-send disarm
systemctl enable --now kdump
status_of`, "1", []arm.Code{arm.OthersImage},
}

// wrongCases go wrong on a machine that is armed, one after the other. In the end it is armed again.
var wrongCases = []wrongCase{
	{
		// What arms again would mend what goes wrong from here on.
		"nothing", `systemctl is-active corehaul-rearm.path corehaul-rearm.timer
sum=$(sha256sum /run/corehaul-send/armed.json)
systemctl start corehaul-rearm
test "$sum" = "$(sha256sum /run/corehaul-send/armed.json)"
systemctl disable --now corehaul-rearm.path corehaul-rearm.timer
systemctl stop corehaul-rearm
udevadm test --action=online /sys/devices/system/memory/memory0 2>&1 | grep 'try-reload-or-restart corehaul-arm'
udevadm test --action=add /sys/devices/system/cpu/cpu1 2>&1 | grep 'try-reload-or-restart corehaul-arm'
status_of`, "0", nil,
	},
	{
		"configuration changed", `cd /etc
cp corehaul-send.toml /run
echo 'level = 1' >> corehaul-send.toml
status_of
cp /run/corehaul-send.toml .`, "3", []arm.Code{arm.ConfigChanged},
	},
	{
		"the program is newer", `cp /usr/bin/corehaul-send /run/newer
echo >> /run/newer
mv /run/newer /usr/bin/corehaul-send
status_of --offline > /run/status
grep program-changed /run/status
corehaul-send arm --if-changed
corehaul-send arm --if-changed | grep 'nothing to do'
status_of --offline`, "0", nil,
	},
	{
		"identity gone", `mv /etc/corehaul-send.pem /run
kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r) 2>&1 | grep "corehaul: with kernel $(uname -r), this machine will not be ready to dump"
status_of --offline
mv /run/corehaul-send.pem /etc`, "3", []arm.Code{arm.KeyGone},
	},
	{
		"kdump is enabled too", `cd /etc/systemd/system/multi-user.target.wants
ln -s /lib/systemd/system/kdump-tools.service .
status_of --offline
rm kdump-tools.service`, "3", []arm.Code{arm.OtherAtBoot},
	},
	{
		"the image of another program", `kexec -p /boot/vmlinuz-$(uname -r) --append=other
fails corehaul-send arm
fails corehaul-send disarm
grep 1 /sys/kernel/kexec_crash_loaded
status_of`, "1", []arm.Code{arm.OthersImage},
	},
	{
		// The release is in the header of the file, which nothing checks without Secure Boot.
		"the image of another kernel, without a driver", `this=$(uname -r)
other=$(echo $this | sed s/^6/7/)
sed "s/$this/$other/" /boot/vmlinuz-$this > /boot/vmlinuz-$other
cp -r /lib/modules/$this /lib/modules/$other
sed -i /virtio_net/d /lib/modules/$other/modules.dep /lib/modules/$other/modules.alias
run-parts -v --arg=$other --arg=/boot/vmlinuz-$other /etc/kernel/postinst.d 2>&1 | grep 'needs the module virtio_net, which 7'
corehaul-send arm --replace --kernel /boot/vmlinuz-$other
status_of --offline`, "3", []arm.Code{arm.OtherKernel, arm.DriverMissing},
	},
	{
		"disarmed", `systemctl stop corehaul-arm
grep 0 /sys/kernel/kexec_crash_loaded
fails ls /run/corehaul-send
status_of`, "1", []arm.Code{arm.Unloaded},
	},
	{
		"armed again, on a kernel without kexec_file_load", `mkdir -p /run/systemd/system/corehaul-arm.service.d
printf '[Service]\nSystemCallFilter=~kexec_file_load\nSystemCallErrorNumber=ENOSYS\n' > /run/systemd/system/corehaul-arm.service.d/old.conf
systemctl daemon-reload
systemctl start corehaul-arm
status_of --offline
test -z "$(systemctl --failed --no-legend)"`, "0", nil,
	},
}

// smallCases go wrong on a machine that gives its reserved memory back, first most of it.
var smallCases = []wrongCase{
	{
		"reservation too small", `printf 'to = ["nfs://192.0.2.9/e"]\n' > /etc/corehaul-send.toml
echo $((80 << 20)) > /sys/kernel/kexec_crash_size
corehaul-send arm
status_of --offline
corehaul-send disarm`, "3", []arm.Code{arm.SmallReserved},
	},
	{
		"no reservation", `echo 0 > /sys/kernel/kexec_crash_size
fails corehaul-send arm
status_of`, "1", []arm.Code{arm.NoReservation},
	},
}

// checkMachine lets things go wrong, and looks whether status finds each of them before the panic.
func (h *recipeHosts) checkMachine(t *testing.T) {
	t.Helper()
	for _, tc := range wrongCases {
		h.checkWrong(t, "web-17", tc)
	}
	h.run(t, "collector", "systemctl stop corehaul")
	h.checkWrong(t, "web-17", wrongCase{"receiver not reachable", "status_of", "3", []arm.Code{arm.NotReachable}})
	h.run(t, "collector", "systemctl start corehaul")
	h.checkKilled(t)
	for _, tc := range smallCases {
		h.checkWrong(t, "collector", tc)
	}
}

// checkWrong runs a script on a host and compares what status finds.
func (h *recipeHosts) checkWrong(t *testing.T, on string, tc wrongCase) arm.Status {
	t.Helper()
	out := h.run(t, on, statusOf+tc.script)
	t.Logf("%s: %s", tc.name, out)
	s, code := statusIn(t, out)
	var got []arm.Code
	for _, f := range s.Findings {
		if f.Problem {
			got = append(got, f.Code)
		}
	}
	if code != tc.code || !slices.Equal(got, tc.want) {
		t.Errorf("%s: exit code %s with %q, want %s with %q", tc.name, code, got, tc.code, tc.want)
	}
	return s
}

// statusIn takes the document of status_of out of what a script printed.
func statusIn(t *testing.T, out string) (s arm.Status, code string) {
	t.Helper()
	_, doc, _ := strings.Cut("\n"+out, "\n{")
	doc, rest, ok := strings.Cut("{"+doc, "exit code ")
	if err := json.Unmarshal([]byte(doc), &s); err != nil || !ok {
		t.Fatalf("status printed no document: %v\n%s", err, out)
	}
	code, _, _ = strings.Cut(rest, "\n")
	return s, code
}
