package watch

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMemoryIsBounded drops the oldest records, so that the file can be read again.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 20000
	now := time.Unix(1_700_000_000, 0).UTC()
	f := memoryFile{Version: memoryVersion, Paths: map[string]*record{}, Dumps: map[string]*taken{}}
	for i := range 300 {
		at := now.Add(time.Duration(i) * time.Minute)
		f.Paths[key(fmt.Sprint(i))] = &record{Path: strings.Repeat("<", 100), Seen: at}
		f.Dumps[fmt.Sprint(i)] = &taken{Seen: at}
	}
	text, err := f.encode(200, limit)
	if err != nil || len(text) > limit || len(text) < limit/4 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	var back memoryFile
	if err := json.Unmarshal(text, &back); err != nil || back.Paths[key("299")] == nil || back.Dumps["299"] == nil || back.Dumps["0"] != nil {
		t.Errorf("%d paths, %d dumps, %v", len(back.Paths), len(back.Dumps), err)
	}
}
