// Package history finds out of a recording what was live when, who allocated it, and how long it lived.
//
//	r, err := history.Open("server.alloctrace", false)
//	…
//	leaks, err := history.FindLeaks(r, history.Options{})
//
// A [History] follows the events of package recording one by one. It keeps the blocks that are live, and adds up what each
// [Site] has allocated: its memory is bounded by these, and not by the number of events. [FindLeaks], [NewTimeline],
// [Compare] and [FindBlocks] are made of one pass over a [Recording] each.
//
// What cannot be known is counted, in [Unknown]: events that were dropped, blocks that are older than the recording.
//
// The command exporters/cmd/alloctrace prints what is here.
package history
