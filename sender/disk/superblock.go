package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Superblock is what the superblock of a file system, or of a container of one, says of it.
type Superblock struct {
	// Type is ext4, xfs or btrfs, the kernel's name of the file system and of its module; or crypto_LUKS.
	Type string
	// UUID is in lower case, with dashes.
	UUID string
	// Label has the bytes of the disk.
	Label string
	// Trouble says why nothing can be written, and Remedy what to do. Both are empty if nothing is known against it.
	Trouble, Remedy string
}

// ErrNoFilesystem means that a device has no superblock of a known kind.
var ErrNoFilesystem = errors.New("no ext4, xfs or btrfs there")

// ReadSuperblock reads the superblock of a device of so many bytes.
func ReadSuperblock(r io.ReaderAt, size int64) (*Superblock, error) {
	for _, kind := range []struct {
		at    int64
		len   int
		parse func([]byte) *Superblock
	}{
		{luksAt, luksLen, parseLUKS},
		{xfsAt, xfsLen, parseXFS},
		{ext4At, ext4Len, parseExt4},
		{btrfsAt, btrfsLen, parseBtrfs},
	} {
		if kind.at+int64(kind.len) > size {
			continue
		}
		b := make([]byte, kind.len)
		if _, err := r.ReadAt(b, kind.at); err != nil {
			return nil, err
		}
		if sb := kind.parse(b); sb != nil {
			return sb, sb.noteArray(r, size)
		}
	}
	return nil, ErrNoFilesystem
}

// Offsets in struct ext4_super_block, fs/ext4/ext4.h. All of its fields are little endian.
const (
	ext4At          = 1024 // of the superblock on the device: EXT4_MIN_BLOCK_SIZE
	ext4Len         = 1024
	ext4Magic       = 0x38 // s_magic, le16
	ext4State       = 0x3A // s_state, le16
	ext4Incompat    = 0x60 // s_feature_incompat, le32
	ext4UUID        = 0x68 // s_uuid, 16 bytes
	ext4Label       = 0x78 // s_volume_name, 16 bytes
	ext4MagicValue  = 0xEF53
	ext4ErrorFS     = 0x0002 // EXT4_ERROR_FS
	ext4JournalDev  = 0x0008 // EXT4_FEATURE_INCOMPAT_JOURNAL_DEV
	ext4LabelLength = 16
)

func parseExt4(b []byte) *Superblock {
	le := binary.LittleEndian
	if le.Uint16(b[ext4Magic:]) != ext4MagicValue || le.Uint32(b[ext4Incompat:])&ext4JournalDev != 0 {
		return nil
	}
	sb := &Superblock{Type: "ext4", UUID: uuid(b[ext4UUID:]), Label: text(b[ext4Label:], ext4LabelLength)}
	if le.Uint16(b[ext4State:])&ext4ErrorFS != 0 {
		// The kernel would mount it. But it recorded an error there, and what it writes may make that worse.
		sb.Trouble, sb.Remedy = "its superblock says that it has errors", "repair it with e2fsck"
	}
	return sb
}

// Offsets in struct xfs_dsb, fs/xfs/libxfs/xfs_format.h. All of its fields are big endian. The superblock is at the beginning of
// the device (XFS_SB_DADDR).
const (
	xfsAt           = 0
	xfsLen          = 512
	xfsMagic        = 0   // sb_magicnum, be32
	xfsUUID         = 32  // sb_uuid, 16 bytes
	xfsVersion      = 100 // sb_versionnum, be16
	xfsLabel        = 108 // sb_fname, 12 bytes
	xfsIncompat     = 216 // sb_features_incompat, be32, since version 5
	xfsMagicValue   = 0x58465342
	xfsVersionMask  = 0x000f // XFS_SB_VERSION_NUMBITS
	xfsNeedsRepair  = 1 << 4 // XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR
	xfsLabelLength  = 12
	xfsWithFeatures = 5
)

func parseXFS(b []byte) *Superblock {
	be := binary.BigEndian
	if be.Uint32(b[xfsMagic:]) != xfsMagicValue {
		return nil
	}
	sb := &Superblock{Type: "xfs", UUID: uuid(b[xfsUUID:]), Label: text(b[xfsLabel:], xfsLabelLength)}
	if be.Uint16(b[xfsVersion:])&xfsVersionMask == xfsWithFeatures && be.Uint32(b[xfsIncompat:])&xfsNeedsRepair != 0 {
		sb.Trouble, sb.Remedy = "its superblock says that it needs a repair", "repair it with xfs_repair"
	}
	return sb
}

// Offsets in struct btrfs_super_block, include/uapi/linux/btrfs_tree.h. All of its fields are little endian.
const (
	btrfsAt          = 64 << 10 // BTRFS_SUPER_INFO_OFFSET
	btrfsLen         = 4096     // BTRFS_SUPER_INFO_SIZE
	btrfsUUID        = 32       // fsid, 16 bytes
	btrfsMagic       = 64       // magic, 8 bytes
	btrfsDevices     = 136      // num_devices, le64
	btrfsLabel       = 299      // label, 256 bytes, behind dev_item
	btrfsMagicValue  = "_BHRfS_M"
	btrfsLabelLength = 256
)

func parseBtrfs(b []byte) *Superblock {
	if string(b[btrfsMagic:btrfsMagic+len(btrfsMagicValue)]) != btrfsMagicValue {
		return nil
	}
	sb := &Superblock{Type: "btrfs", UUID: uuid(b[btrfsUUID:]), Label: text(b[btrfsLabel:], btrfsLabelLength)}
	if n := binary.LittleEndian.Uint64(b[btrfsDevices:]); n != 1 {
		sb.Trouble, sb.Remedy = fmt.Sprintf("it has %d devices, and only one is supported", n), "name another file system"
	}
	return sb
}

// Offsets in the header of LUKS, the same in both versions: struct luks2_hdr_disk, lib/luks2/luks2.h of cryptsetup. A header is
// known here only to say what is wrong.
const (
	luksAt         = 0
	luksLen        = 512
	luksUUID       = 168 // uuid, 40 characters
	luksMagicValue = "LUKS\xba\xbe"
	luksUUIDLength = 40
)

func parseLUKS(b []byte) *Superblock {
	if !bytes.HasPrefix(b, []byte(luksMagicValue)) {
		return nil
	}
	return &Superblock{
		Type: "crypto_LUKS", UUID: text(b[luksUUID:], luksUUIDLength),
		Trouble: "it is encrypted (LUKS), and a capture kernel has no key", Remedy: "name a file system that is not encrypted",
	}
}

// Members of an array of md with a superblock at their end (versions 0.90 and 1.0) look like the file system on the array.
// Who writes to one member makes it differ from the others.
const (
	mdMagic = 0xa92b4efc // MD_SB_MAGIC, include/uapi/linux/raid/md_p.h, of both versions
	// MD_RESERVED_BYTES, there. Version 0.90 is in the last whole piece of this size.
	mdReserved = 64 << 10
)

// noteArray notes that the device belongs to an array.
func (sb *Superblock) noteArray(r io.ReaderAt, size int64) error {
	for _, at := range []int64{
		size&^(mdReserved-1) - mdReserved,    // MD_NEW_SIZE_SECTORS, include/uapi/linux/raid/md_p.h
		((size>>9 - 8*2) &^ (4*2 - 1)) * 512, // minor version 0 in super_1_load, drivers/md/md.c
	} {
		var b [4]byte
		if at < 0 {
			continue
		}
		if _, err := r.ReadAt(b[:], at); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(b[:]) == mdMagic || binary.BigEndian.Uint32(b[:]) == mdMagic {
			sb.Trouble, sb.Remedy = "it is a member of a software RAID (md), which a capture kernel does not assemble", "name a file system on a plain disk"
		}
	}
	return nil
}

// uuid formats the first 16 bytes of b.
func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// text returns the characters of a field up to the first zero.
func text(b []byte, length int) string {
	before, _, _ := bytes.Cut(b[:length], []byte{0})
	return string(before)
}
