package printk

// PanicLine returns the line of a log that best tells what happened, as a
// TitleFinder finds it.
func PanicLine(lines []string) string {
	var f TitleFinder
	for _, line := range lines {
		f.Add(line)
	}
	return f.Line()
}
