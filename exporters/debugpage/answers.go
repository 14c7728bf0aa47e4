package debugpage

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// An answer is given to all who ask for the same while it is new: so that what they cost does not grow with their number, and however much an
// answer costs, asking for it all the time takes at most a five-hundredth of a processor. There are a few kinds of them, and their garbage is to be
// collected too: together that is a hundredth.
type answer struct {
	asked time.Time     // for the first time; written before others have the answer
	done  chan struct{} // closed once the rest is there
	body  []byte        // gzip'ed JSON
	err   error
	made  time.Time
	took  time.Duration
	first bool // of those to its query: it may have found names that later ones know, and so does not say what they take
}

// An answer is new for answerTime, and for answerShare times what it took to make unless it is the first.
const (
	answerTime  = time.Second
	answerShare = 500
)

func (a *answer) isNew() bool {
	select {
	case <-a.done:
		return time.Since(a.made) < newFor(a.took, a.first)
	default:
		return true
	}
}

// newFor returns how long something is new that has taken so long to make.
func newFor(took time.Duration, first bool) time.Duration {
	if first {
		return answerTime
	}
	return max(answerTime, answerShare*took)
}

// maxAnswers is how many answers are kept.
const maxAnswers = 32

// answers are those that are being made, or kept for others to have.
type answers struct {
	mu      sync.Mutex
	kept    map[page.Query]*answer
	forever bool // the Source does not change
	keep    bool // somebody looks, so that they are kept
}

// get returns the answer to q, which it makes if there is none that is new. Make is called by one of those who wait, and to its end.
func (s *answers) get(ctx context.Context, q page.Query, produce func(context.Context) (any, error)) (*answer, error) {
	s.mu.Lock()
	a := s.kept[q]
	if a == nil || !s.forever && !a.isNew() {
		a = &answer{asked: time.Now(), done: make(chan struct{}), first: a == nil}
		if s.kept == nil {
			s.kept = make(map[page.Query]*answer)
		}
		s.evict()
		s.kept[q] = a
		s.mu.Unlock()
		a.produce(context.WithoutCancel(ctx), produce)
		s.drop(q, a)
		return a, a.err
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// evict makes room for an answer. s.mu is held.
func (s *answers) evict() {
	for len(s.kept) >= maxAnswers {
		var oldest page.Query
		var asked time.Time
		for q, a := range s.kept {
			if asked.IsZero() || a.asked.Before(asked) {
				oldest, asked = q, a.asked
			}
		}
		delete(s.kept, oldest)
	}
}

// drop drops an answer that is there for those who have waited for it, and not for others.
func (s *answers) drop(q page.Query, a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[q] == a && (a.err != nil || !s.keep && !s.forever) {
		delete(s.kept, q)
	}
}

// forget drops the answers of a kind, which an action has made wrong: also those that are being made.
func (s *answers) forget(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.kept, func(q page.Query, _ *answer) bool { return q.What == what })
}

// watched says whether somebody looks.
func (s *answers) watched(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keep = is; !is && !s.forever {
		clear(s.kept)
	}
}

func (a *answer) produce(ctx context.Context, produce func(context.Context) (any, error)) {
	defer close(a.done)
	begin := time.Now()
	a.err = sources.Try(func() error { // an allocator of the user's may panic
		v, err := produce(ctx)
		if err == nil {
			a.body, err = compressed(v)
		}
		return err
	})
	a.made = time.Now()
	a.took = a.made.Sub(begin)
}

// compressed returns v as gzip'ed JSON, which takes a fifth of the bytes.
func compressed(v any) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(v)
	}
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}
