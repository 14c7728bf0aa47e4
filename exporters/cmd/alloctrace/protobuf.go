package main

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A message is one of Protocol Buffers that is being written. Its methods return it with a field more.
type message []byte

func (m message) number(field protowire.Number, n uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), n)
}

func (m message) text(field protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), text.Line(s, text.MaxText))
}

func (m message) message(field protowire.Number, of message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), of)
}
