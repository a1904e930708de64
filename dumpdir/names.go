package dumpdir

// Names of the files in a dump's directory.
const (
	VMCoreName     = "vmcore"
	IncompleteName = "vmcore-incomplete" // vmcore until the seal
	LogName        = "vmcore-dmesg.txt"
	ManifestName   = "manifest.json"
	JournalName    = "chunks"
	SumsName       = "SHA256SUMS"
	KeptDirName    = "files"      // what else the sender of the dump sent
	KeptListName   = "files.json" // what is in there

	tmpSuffix = ".tmp" // a file that is being written and has not got its name yet
)

// DumpsName is the directory of a store that has one directory for each host, and in them
// those of the dumps.
const DumpsName = "dumps"

// NextName is the directory of a store that has one directory for each host, and in them one by the id of each dump of
// which another one is stored beside it.
const NextName = "next"

// TimeLayout is how the time of the crash, in UTC, begins a directory's name.
const TimeLayout = "20060102T150405Z"

// ShortID is how many characters of the id a directory's name has.
const ShortID = 8

// DirName returns the name for the directory of a new dump: the time of the crash, or when it is not known
// that of arrival, and the beginning of the id.
func DirName(meta *Meta) string {
	at := meta.CrashTime
	if y := at.UTC().Year(); at.IsZero() || y < 1970 || y > 9999 {
		at = meta.StartTime
	}
	return at.UTC().Format(TimeLayout) + "-" + meta.ID[:ShortID]
}
