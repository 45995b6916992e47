package main

import (
	"fmt"
	"log/slog"
	"regexp"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
)

var templateLabel = regexp.MustCompile(`\$labels\.(\w+)`)

// What makes an alert fire: a series, and its value so many seconds after the first scrape.
type fault struct {
	series labels.Labels
	value  func(seconds float64) float64
}

func at(value float64) func(float64) float64 {
	return func(float64) float64 { return value }
}

func growing(aSecond float64) func(float64) float64 {
	return func(seconds float64) float64 { return seconds * aSecond }
}

func falling(from, aSecond float64) func(float64) float64 {
	return func(seconds float64) float64 { return from - seconds*aSecond }
}

func named(metric string, more ...string) labels.Labels {
	return labels.FromStrings(append([]string{labels.MetricName, metric}, more...)...)
}

// By alert: each has one.
var faults = map[string]fault{
	"RinglogDown":              {named("up"), at(0)},
	"RinglogRestarts":          {named("process_start_time_seconds"), growing(1)},
	"RinglogNotServing":        {named("ringlog_state", "state", "serving"), at(0)},
	"RinglogLogDirOffline":     {named("ringlog_log_dir_online"), at(0)},
	"RinglogLogDirFull":        {named("ringlog_log_dir_has_room"), at(0)},
	"RinglogLogDirFilling":     {named("ringlog_log_dir_room_bytes"), falling(1<<30, 1<<20)},
	"RinglogPartitionsOffline": {named("ringlog_partitions_offline", "shard", "0"), at(1)},
	"RinglogShardSilent":       {named("ringlog_shard_answered", "shard", "0"), at(0)},
	"RinglogErrors": {
		named("ringlog_request_errors_total", "api", "Produce", "error", "KAFKA_STORAGE_ERROR"), growing(1),
	},
	"RinglogShardBusy": {named("ringlog_shard_busy_seconds_total", "shard", "0"), growing(0.95)},
	"RinglogShardHeld": {
		named("ringlog_shard_held_seconds_total", "shard", "0", "call", "write"), growing(0.01),
	},
	"RinglogFlushesSlow":       {named("ringlog_log_dir_sync_seconds_sum"), growing(1000)},
	"RinglogDirtyBytes":        {named("ringlog_log_dir_dirty_bytes_now"), at(1e15)},
	"RinglogDescriptorsScarce": {named("process_open_fds"), at(999_999_999)},
	"RinglogUncleanable":       {named("ringlog_uncleanable_partitions", "shard", "0"), at(1)},
}

// Other programs may use the same disk meanwhile: for a healthy broker it has room and is quick.
var disk = []fault{
	{named("ringlog_log_dir_room_bytes"), at(1 << 40)},
	{named("ringlog_log_dir_sync_seconds_sum"), at(0)},
	{named("ringlog_shard_held_seconds_total"), at(0)},
}

// Reads the alerts by Prometheus' own rules, and holds each to be silent on a healthy broker and to fire on a sick one.
func inspectAlerts(content string, scraped *store, found *findings) {
	groups, errs := rulefmt.Parse(
		[]byte(content), false, model.UTF8Validation, promqlParser, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		found.check("alerts", err)
	}
	if groups == nil {
		return
	}
	for _, of := range disk {
		scraped = scraped.with(of.series, of.value)
	}
	seen := make(map[string]bool)
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			seen[rule.Alert] = true
			found.check("alert "+rule.Alert, inspectAlert(rule, scraped))
		}
	}
	for name := range faults {
		if !seen[name] {
			found.check("alert "+name, fmt.Errorf("is not there"))
		}
	}
}

func inspectAlert(rule rulefmt.Rule, scraped *store) error {
	if err := scraped.selects(rule.Expr); err != nil {
		return err
	}
	fires, err := scraped.evaluate(rule.Expr)
	if err != nil {
		return err
	}
	if len(fires) > 0 {
		return fmt.Errorf("fires on a healthy broker: %v", fires)
	}
	of, known := faults[rule.Alert]
	if !known {
		return fmt.Errorf("nothing here makes it fire")
	}
	fires, err = scraped.with(of.series, of.value).evaluate(rule.Expr)
	if err != nil {
		return err
	}
	if !lasts(fires, scraped) {
		return fmt.Errorf("does not fire with %v", of.series)
	}
	for _, annotation := range rule.Annotations {
		for _, label := range templateLabel.FindAllStringSubmatch(annotation, -1) {
			if !fires[0].Metric.Has(label[1]) {
				return fmt.Errorf("no label %s for its annotation", label[1])
			}
		}
	}
	return nil
}

// To the end: an alert that comes and goes never reaches its `for`.
func lasts(fires promql.Matrix, scraped *store) bool {
	for _, series := range fires {
		if points := series.Floats; len(points) > 0 && points[len(points)-1].T == scraped.end().UnixMilli() {
			return true
		}
	}
	return false
}
