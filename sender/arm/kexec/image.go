package kexec

import (
	"bytes"
	"encoding/binary"
)

// An Image is what a kernel's file says of itself. Fields are zero if the file does not say.
type Image struct {
	// Release is as in uname -r.
	Release string
	// Memory is what the kernel needs to start, in bytes: to unpack itself, and for its code and data.
	Memory uint64
	// Unpacks says that the kernel unpacks itself, so that a part of Memory is free again once it runs.
	Unpacks bool
	// CmdlineMax is the longest command line that it takes, in bytes without the zero at its end.
	CmdlineMax int
}

// The header of a bzImage: Documentation/arch/x86/boot.rst. Offsets in bytes, numbers are little-endian.
const (
	bzMagicAt       = 0x202 // "HdrS"
	bzProtocolAt    = 0x206 // u16, 0x020a since init_size
	bzVersionAt     = 0x20e // u16, offset of the version's text less 0x200
	bzCmdlineSizeAt = 0x238 // u32, since 2.06
	bzInitSizeAt    = 0x260 // u32, since 2.10
	bzHeaderEnd     = 0x264
	bzProtocol210   = 0x20a
)

// The header of an arm64 Image: Documentation/arch/arm64/booting.rst.
const (
	armImageSizeAt = 0x10 // u64
	armMagicAt     = 0x38 // "ARM\x64"
	armHeaderEnd   = 0x40
	// armCmdlineMax is COMMAND_LINE_SIZE of arm64 less the zero (arch/arm64/include/uapi/asm/setup.h).
	armCmdlineMax = 2047
)

// maxRelease bounds a release: the kernel's own limit is that of utsname, 64 with the zero.
const maxRelease = 64

// ReadImage reads the header of a kernel's file. A file of an unknown kind gives the zero Image.
func ReadImage(file []byte) Image {
	switch {
	case len(file) >= bzHeaderEnd && bytes.HasPrefix(file[bzMagicAt:], []byte("HdrS")):
		return readBzImage(file)
	case len(file) >= armHeaderEnd && bytes.HasPrefix(file[armMagicAt:], []byte("ARM\x64")):
		return Image{
			Release: releaseInBanner(file), CmdlineMax: armCmdlineMax,
			Memory: binary.LittleEndian.Uint64(file[armImageSizeAt:]),
		}
	}
	return Image{}
}

func readBzImage(file []byte) Image {
	var i Image
	if at := int(binary.LittleEndian.Uint16(file[bzVersionAt:])); at > 0 && at+0x200 < len(file) {
		i.Release = firstWord(file[at+0x200:])
	}
	if binary.LittleEndian.Uint16(file[bzProtocolAt:]) >= bzProtocol210 {
		i.CmdlineMax = int(binary.LittleEndian.Uint32(file[bzCmdlineSizeAt:]) & 0xffff)
		i.Memory = uint64(binary.LittleEndian.Uint32(file[bzInitSizeAt:]))
		i.Unpacks = i.Memory > 0
	}
	return i
}

// releaseInBanner finds linux_banner (init/version.c), which an Image has unpacked.
func releaseInBanner(file []byte) string {
	const banner = "Linux version "
	for {
		i := bytes.Index(file, []byte(banner))
		if i < 0 {
			return ""
		}
		file = file[i+len(banner):]
		if len(file) > 0 && file[0] >= '0' && file[0] <= '9' {
			return firstWord(file)
		}
	}
}

// firstWord returns the printable text up to a blank, empty if there is no end.
func firstWord(b []byte) string {
	for i, c := range b[:min(len(b), maxRelease)] {
		if c <= ' ' || c > '~' {
			return string(b[:i])
		}
	}
	return ""
}
