package bench

import (
	"bytes"
	"fmt"
	"text/template"
)

// Sizes of the chart in pixels.
const (
	barsLeft  = 210
	barsWidth = 460
	barStep   = 20
	headStep  = 34
)

// A bar is the wall time of a row. Positions are in pixels.
type bar struct {
	Y, Text               int
	Method, Time          string
	Width, Low, High, Say float64
	Peer                  bool
}

// A group is a cell of the chart. Its bars have a scale of their own.
type group struct {
	Y     int
	Title string
	Bars  []bar
}

// A line across the end of a bar goes from the fastest run to the slowest.
var chart = template.Must(template.New("chart").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
{{range .Groups}}<text x="8" y="{{.Y}}" font-weight="bold">{{html .Title}}</text>
{{range .Bars}}<text x="{{$.Left}}" dx="-8" y="{{.Text}}" text-anchor="end">{{html .Method}}</text>
<rect x="{{$.Left}}" y="{{.Y}}" width="{{printf "%.1f" .Width}}" height="14" fill="{{if .Peer}}#9aa0a6{{else}}#2a6fb0{{end}}"/>
<path d="M{{printf "%.1f" .Low}} {{.Middle}}H{{printf "%.1f" .High}}" stroke="#202124" stroke-width="1.5"/>
<text x="{{printf "%.1f" .Say}}" y="{{.Text}}">{{.Time}}</text>
{{end}}{{end}}</svg>
`))

// Middle is where the line from the fastest to the slowest run is.
func (b bar) Middle() int { return b.Y + 7 }

// Chart draws the wall times as SVG, a group of bars for each cell in which sides are not bound to cores.
func (r *Report) Chart() ([]byte, error) {
	var groups []group
	y := 0
	for _, cell := range r.cells() {
		if cell.Bound {
			continue
		}
		y += headStep
		g := group{Y: y - 10, Title: cell.String() + ": seconds until durable"}
		scale := barsWidth / r.slowest(cell)
		for _, row := range r.Rows {
			if row.Cell == cell {
				g.Bars = append(g.Bars, barOf(&row, y, scale))
				y += barStep
			}
		}
		groups = append(groups, g)
	}
	var out bytes.Buffer
	err := chart.Execute(&out, map[string]any{
		"Width": barsLeft + barsWidth + 120, "Height": y + 10, "Left": barsLeft, "Groups": groups,
	})
	return out.Bytes(), err
}

func barOf(r *Row, y int, scale float64) bar {
	end := barsLeft + r.Max.Wall*scale
	return bar{
		Y: y, Text: y + 11, Method: r.Method, Peer: r.Peer, Time: fmt.Sprintf("%.2f", r.Median.Wall), Width: r.Median.Wall * scale,
		Low: barsLeft + r.Min.Wall*scale, High: end, Say: end + 6,
	}
}

// slowest is the longest run of a cell.
func (r *Report) slowest(cell Cell) float64 {
	var most float64
	for _, row := range r.Rows {
		if row.Cell == cell {
			most = max(most, row.Max.Wall)
		}
	}
	return most
}
