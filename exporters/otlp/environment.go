package otlp

import (
	"fmt"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// lookup returns the first of the named variables that is set to something,
// and its name. A blank value counts as unset, as the OpenTelemetry
// specification has it.
func lookup(names ...string) (name, value string) {
	for _, n := range names {
		if v := strings.TrimSpace(os.Getenv(n)); v != "" {
			return n, v
		}
	}
	return "", ""
}

// otlpNames returns the names of the variable for traces and of the one for
// all signals, in this order.
func otlpNames(suffix string) (traces, general string) {
	return "OTEL_EXPORTER_OTLP_TRACES_" + suffix, "OTEL_EXPORTER_OTLP_" + suffix
}

// lookupOTLP returns the variable for traces, or else the one for all signals.
func lookupOTLP(suffix string) (name, value string) { return lookup(otlpNames(suffix)) }

// envError says that a variable's value makes no sense, why, and what would.
func envError(name, value, what, remedy string) error {
	return fmt.Errorf("%s=%q: %s; %s", name, value, what, remedy)
}

// envNumber returns the whole number in the first variable that is set, or
// fallback. The specification ends the range at 1<<31 - 1.
func envNumber(low, fallback int, names ...string) (int, error) {
	name, v := lookup(names...)
	if v == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < int64(low) || n > math.MaxInt32 {
		return 0, envError(name, v, "not a number in its range", fmt.Sprintf("use a whole number from %d to %d", low, math.MaxInt32))
	}
	return int(n), nil
}

// envMilliseconds is envNumber for a length of time. The value 0 becomes zero.
func envMilliseconds(zero, fallback time.Duration, names ...string) (time.Duration, error) {
	name, v := lookup(names...)
	if v == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil || n < 0 || n > math.MaxInt32:
		return 0, envError(name, v, "not a time in milliseconds", fmt.Sprintf("use a whole number from 0 to %d, such as 10000", math.MaxInt32))
	case n == 0:
		return zero, nil
	}
	return time.Duration(n) * time.Millisecond, nil
}

// unlimited stands for no limit: the specification lets a timeout of 0 be the
// longest that there is.
const unlimited = math.MaxInt32 * time.Millisecond

// envDisabled reads OTEL_SDK_DISABLED.
func envDisabled() (bool, error) {
	name, v := lookup("OTEL_SDK_DISABLED")
	switch strings.ToLower(v) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, envError(name, v, "neither true nor false", "use true to switch tracing off, or leave it unset")
}

// envExporter reads OTEL_TRACES_EXPORTER: "otlp", "console" or "none".
func envExporter() (string, error) {
	name, v := lookup("OTEL_TRACES_EXPORTER")
	switch e := strings.ToLower(v); e {
	case "":
		return "otlp", nil
	case "otlp", "console", "none":
		return e, nil
	case "otlp/stdout":
		return "console", nil
	}
	return "", envError(name, v, "not an exporter of this package", "use one of otlp, console and none")
}

// envSampler reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.
func envSampler() (sdktrace.Sampler, error) {
	name, v := lookup("OTEL_TRACES_SAMPLER")
	switch strings.ToLower(v) {
	case "", "parentbased_always_on":
		return sdktrace.ParentBased(sdktrace.AlwaysSample()), nil
	case "parentbased_always_off":
		return sdktrace.ParentBased(sdktrace.NeverSample()), nil
	case "always_on":
		return sdktrace.AlwaysSample(), nil
	case "always_off":
		return sdktrace.NeverSample(), nil
	case "traceidratio":
		return envRatio()
	case "parentbased_traceidratio":
		s, err := envRatio()
		if err != nil {
			return nil, err
		}
		return sdktrace.ParentBased(s), nil
	}
	return nil, envError(name, v, "not a sampler of this package",
		"use always_on, always_off or traceidratio, or one of them after parentbased_")
}

func envRatio() (sdktrace.Sampler, error) {
	name, v := lookup("OTEL_TRACES_SAMPLER_ARG")
	if v == "" {
		return sdktrace.TraceIDRatioBased(1), nil
	}
	ratio, err := strconv.ParseFloat(v, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) {
		return nil, envError(name, v, "not a ratio", "use a number from 0 to 1, such as 0.25")
	}
	return sdktrace.TraceIDRatioBased(ratio), nil
}

// envLimits reads the OTEL_SPAN_*, OTEL_EVENT_*, OTEL_LINK_* and
// OTEL_ATTRIBUTE_* limits.
func envLimits() (sdktrace.SpanLimits, error) {
	var l sdktrace.SpanLimits
	for _, x := range []struct {
		limit    *int
		fallback int
		names    []string
	}{
		{&l.AttributeValueLengthLimit, sdktrace.DefaultAttributeValueLengthLimit,
			[]string{"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"}},
		{&l.AttributeCountLimit, sdktrace.DefaultAttributeCountLimit,
			[]string{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"}},
		{&l.EventCountLimit, sdktrace.DefaultEventCountLimit, []string{"OTEL_SPAN_EVENT_COUNT_LIMIT"}},
		{&l.LinkCountLimit, sdktrace.DefaultLinkCountLimit, []string{"OTEL_SPAN_LINK_COUNT_LIMIT"}},
		{&l.AttributePerEventCountLimit, sdktrace.DefaultAttributePerEventCountLimit, []string{"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"}},
		{&l.AttributePerLinkCountLimit, sdktrace.DefaultAttributePerLinkCountLimit, []string{"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"}},
	} {
		var err error
		if *x.limit, err = envNumber(0, x.fallback, x.names...); err != nil {
			return l, err
		}
	}
	return l, nil
}

// batching is when and in what portions spans leave the queue.
type batching struct {
	delay   time.Duration // the longest that a span waits for its batch to fill up
	size    int           // spans in a batch at most
	timeout time.Duration // for one batch, 0 if unset
}

// minDelay keeps the processor's timer, which runs also while there are no
// spans, from taking more than 1 % of a core.
const minDelay = 10 * time.Millisecond

// envBatching reads OTEL_BSP_*, but for OTEL_BSP_MAX_QUEUE_SIZE.
func envBatching() (b batching, err error) {
	if b.delay, err = envMilliseconds(0, sdktrace.DefaultScheduleDelay*time.Millisecond, "OTEL_BSP_SCHEDULE_DELAY"); err != nil {
		return b, err
	}
	b.delay = max(b.delay, minDelay)
	if b.timeout, err = envMilliseconds(unlimited, 0, "OTEL_BSP_EXPORT_TIMEOUT"); err != nil {
		return b, err
	}
	b.size, err = envNumber(1, sdktrace.DefaultMaxExportBatchSize, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
	return b, err
}

// members returns the key=value members of the list that source shows, decoded.
// Empty members are passed over.
func members(source, list string) ([][2]string, error) {
	var out [][2]string
	for i, m := range strings.Split(list, ",") {
		m = strings.TrimSpace(m)
		if m == "" {
			continue
		}
		bad := func(what string) error {
			return fmt.Errorf("%s: member %d %s; write key=value,key=value with %%2C for a comma, %%3D for = and %%25 for %%", source, i+1, what)
		}
		rawKey, rawValue, found := strings.Cut(m, "=")
		if !found {
			return nil, bad("has no =")
		}
		key, err := url.PathUnescape(strings.TrimSpace(rawKey))
		if err != nil {
			return nil, bad("has a key with an " + err.Error())
		}
		if key == "" {
			return nil, bad("has no key before its =")
		}
		value, err := url.PathUnescape(strings.TrimSpace(rawValue))
		if err != nil {
			return nil, bad("has a value with an " + err.Error())
		}
		out = append(out, [2]string{key, value})
	}
	return out, nil
}

// envResource reads OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME.
func envResource() ([]attribute.KeyValue, error) {
	var attrs []attribute.KeyValue
	name, list := lookup("OTEL_RESOURCE_ATTRIBUTES")
	pairs, err := members(fmt.Sprintf("%s=%q", name, list), list)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		if p[0] == "service.name" && p[1] == "" {
			continue // as good as unset
		}
		attrs = append(attrs, attribute.String(p[0], p[1]))
	}
	if _, service := lookup("OTEL_SERVICE_NAME"); service != "" {
		attrs = append(attrs, attribute.String("service.name", service))
	}
	return attrs, nil
}
