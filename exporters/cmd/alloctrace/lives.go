package main

import (
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// lives writes a slice for each block, on a track of its own: Perfetto shows tracks of one name below one another as one.
func (p *perfettoWriter) lives(blocks []history.Block) {
	if len(blocks) == 0 {
		return
	}
	p.track(message(nil).number(trackUUID, blocksTrack).number(trackParent, processTrack).text(trackName, "blocks with the most bytes times time"))
	for i := range blocks {
		b := &blocks[i]
		of := ownerName(b.Site.Proxy, b.Site.Child)
		track := p.newTrack(blocksTrack, of)
		name := "unknown"
		if len(b.Site.Stack) > 0 {
			name = shortName(b.Site.Stack[0].Function)
		}
		m := about(message(nil).text(eventName, name), of, b.Size, b.Requested, b.Region)
		m = m.message(eventAnnotations, message(nil).text(annotationName, "state").text(annotationString, stateOf(b)))
		m = m.message(eventAnnotations, message(nil).text(annotationName, "address").number(annotationPointer, uint64(b.Addr)))
		p.event(b.Acquired, typeSliceBegin, track, m.number(eventCallstack, p.site(b.Site)))
		p.event(b.Released, typeSliceEnd, track, nil)
	}
}
