package main

// versionDoc is the document of "version --json".
type versionDoc struct {
	Version  string `json:"version"`
	Go       string `json:"go"`       // version of the compiler
	Platform string `json:"platform"` // operating system and architecture
}

// groupChanged is the document of the commands of "group" that change one.
type groupChanged struct {
	Group string `json:"group"` // id that the group had
	Done  string `json:"done"`  // what was done, for people
}

// caMade is the document of "ca init --json".
type caMade struct {
	CA  string `json:"ca"`  // directory
	Pin string `json:"pin"` // of the receiver's key, as identities have it
}

// identityMade is the document of "ca issue --json".
type identityMade struct {
	Host     string `json:"host"`
	Identity string `json:"identity"` // file
}

// hostKeys is the document of "known-hosts --json".
type hostKeys struct {
	Lines []string `json:"lines"` // of a known_hosts file
}
