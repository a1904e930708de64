package dumpdir

// Names of the files in a dump's directory.
const (
	VMCoreName     = "vmcore"
	IncompleteName = "vmcore-incomplete" // vmcore until the seal
	LogName        = "vmcore-dmesg.txt"
	ManifestName   = "manifest.json"
	JournalName    = "chunks"
	SumsName       = "SHA256SUMS"

	tmpSuffix = ".tmp" // a file that is being written and has not got its name yet
)
