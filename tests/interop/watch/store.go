package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

const (
	// Prometheus' default, and what Grafana makes of it: four scrapes fit into the range of a rate.
	scrapeInterval = time.Minute
	rateInterval   = "4m"
	samplesMax     = 1_000_000
	evaluateLimit  = 10 * time.Second

	job = "ringlog"
)

// The same broker twice: what is asked for must hold for several.
var instances = []string{"one:9644", "other:9644"}

var (
	promqlParser = parser.NewParser(parser.Options{})
	engine       = promql.NewEngine(promql.EngineOpts{
		MaxSamples: samplesMax, Timeout: evaluateLimit, Parser: promqlParser,
	})
)

// The series of all scrapes, in memory: Prometheus' engine evaluates over them. A scrape is said to be an interval after
// the one before it, whenever it was.
type store struct {
	begun   time.Time
	scrapes int
	series  map[string]*series
}

type series struct {
	labels labels.Labels
	points []chunks.Sample
}

func newStore() *store {
	return &store{begun: time.Now().Truncate(scrapeInterval), series: make(map[string]*series)}
}

func (s *store) end() time.Time {
	return s.begun.Add(time.Duration(s.scrapes-1) * scrapeInterval)
}

// Adds a scrape, as Prometheus does: with labels that tell where it is from, and the series `up`.
func (s *store) add(scrape text) error {
	samples, err := scrape.parse()
	if err != nil {
		return err
	}
	s.scrapes++
	samples = append(samples, sample{labels.FromStrings(labels.MetricName, "up"), 1})
	for _, read := range samples {
		added := point{s.end().UnixMilli(), read.value}
		for _, instance := range instances {
			of := s.of(scrapedFrom(instance, read.labels))
			if last := len(of.points) - 1; last >= 0 && of.points[last].T() == added.at {
				return fmt.Errorf("twice in one scrape: %s", read.labels)
			}
			of.points = append(of.points, added)
		}
	}
	return nil
}

func scrapedFrom(instance string, named labels.Labels) labels.Labels {
	return labels.NewBuilder(named).Set("instance", instance).Set("job", job).Labels()
}

func (s *store) of(named labels.Labels) *series {
	key := named.String()
	if s.series[key] == nil {
		s.series[key] = &series{labels: named}
	}
	return s.series[key]
}

// The same scrapes, with other values of the series that match, or of one more series; `value` is told the seconds since
// the first scrape.
func (s *store) with(named labels.Labels, value func(float64) float64) *store {
	changed := &store{s.begun, s.scrapes, maps.Clone(s.series)}
	points := make([]chunks.Sample, 0, s.scrapes)
	for number := range s.scrapes {
		since := time.Duration(number) * scrapeInterval
		points = append(points, point{s.begun.Add(since).UnixMilli(), value(since.Seconds())})
	}
	matchers := make([]*labels.Matcher, 0, named.Len())
	named.Range(func(label labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, label.Name, label.Value))
	})
	matching := s.matching(matchers)
	for _, of := range matching {
		changed.series[of.labels.String()] = &series{of.labels, points}
	}
	if len(matching) == 0 {
		full := scrapedFrom(instances[0], named)
		changed.series[full.String()] = &series{full, points}
	}
	return changed
}

// In the order of their labels.
func (s *store) matching(matchers []*labels.Matcher) []*series {
	var found []*series
	for _, of := range s.series {
		matches := func(matcher *labels.Matcher) bool { return matcher.Matches(of.labels.Get(matcher.Name)) }
		if !slices.ContainsFunc(matchers, func(matcher *labels.Matcher) bool { return !matches(matcher) }) {
			found = append(found, of)
		}
	}
	slices.SortFunc(found, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
	return found
}

// What an expression gives from the second scrape, the first that has a rate, to the last.
func (s *store) evaluate(expression string) (promql.Matrix, error) {
	options := promql.NewPrometheusQueryOpts(false, 0, nil)
	query, err := engine.NewRangeQuery(
		context.Background(), s, options, expression, s.begun.Add(scrapeInterval), s.end(), scrapeInterval)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(context.Background())
	if result.Err != nil {
		return nil, result.Err
	}
	for _, warning := range result.Warnings {
		return nil, warning
	}
	matrix, err := result.Matrix()
	if err != nil {
		return nil, err
	}
	// The engine takes the points back when the query is closed.
	owned := make(promql.Matrix, 0, len(matrix))
	for _, of := range matrix {
		owned = append(owned, promql.Series{Metric: of.Metric, Floats: slices.Clone(of.Floats)})
	}
	return owned, nil
}

// That each selector of an expression finds series; the labels that it matches by may have other values.
func (s *store) selects(expression string) error {
	parsed, err := promqlParser.ParseExpr(expression)
	if err != nil {
		return err
	}
	for _, matchers := range parser.ExtractSelectors(parsed) {
		loose := make([]*labels.Matcher, 0, len(matchers))
		for _, matcher := range matchers {
			if matcher.Name != labels.MetricName {
				matcher = labels.MustNewMatcher(labels.MatchNotEqual, matcher.Name, "")
			}
			loose = append(loose, matcher)
		}
		if len(s.matching(loose)) == 0 {
			return fmt.Errorf("nothing is selected by %v", matchers)
		}
	}
	return nil
}

func (s *store) Querier(_, _ int64) (storage.Querier, error) { return s, nil }

func (s *store) Close() error { return nil }

func (s *store) Select(
	_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	return &seriesSet{rest: s.matching(matchers)}
}

func (s *store) LabelValues(
	_ context.Context, name string, _ *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	values := make(map[string]bool)
	for _, of := range s.matching(matchers) {
		if value := of.labels.Get(name); value != "" {
			values[value] = true
		}
	}
	return slices.Sorted(maps.Keys(values)), nil, nil
}

func (s *store) LabelNames(
	_ context.Context, _ *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	names := make(map[string]bool)
	for _, of := range s.matching(matchers) {
		of.labels.Range(func(label labels.Label) { names[label.Name] = true })
	}
	return slices.Sorted(maps.Keys(names)), nil, nil
}

type seriesSet struct {
	now  *series
	rest []*series
}

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.now, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *seriesSet) At() storage.Series                { return storage.NewListSeries(s.now.labels, s.now.points) }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// A number at a time in milliseconds.
type point struct {
	at    int64
	value float64
}

func (p point) T() int64                      { return p.at }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.value }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }
