package dumpdir

// Names of the files in a dump's directory.
const (
	VMCoreName     = "vmcore"
	IncompleteName = "vmcore-incomplete" // vmcore before the seal
	LogName        = "vmcore-dmesg.txt"
	ManifestName   = "manifest.json"
	JournalName    = "chunks"
	SumsName       = "SHA256SUMS"
	KeptDirName    = "files"      // directory of the files kept beside the dump
	KeptListName   = "files.json" // list of the kept files

	tmpSuffix = ".tmp" // suffix of a file that is not complete yet
)

// DumpsName is the directory of a store that has a directory for each host, with the directories of its dumps.
const DumpsName = "dumps"

// NextName is the directory of a store that has a directory for each host, and in it the challenger of each dump, by
// id.
const NextName = "next"

// TimeLayout is the format of the crash time in UTC at the start of a directory's name.
const TimeLayout = "20060102T150405Z"

// ShortID is how many characters of the id the name of a directory contains.
const ShortID = 8

// DirName returns the directory name of a new dump: the crash time, or the time of arrival if that is unknown, and
// the beginning of the id.
func DirName(meta *Meta) string {
	at := meta.CrashTime
	if y := at.UTC().Year(); at.IsZero() || y < 1970 || y > 9999 {
		at = meta.StartTime
	}
	return at.UTC().Format(TimeLayout) + "-" + meta.ID[:ShortID]
}
