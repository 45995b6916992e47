package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

const columns = 24

// The units that the dashboard uses, by Grafana's own names for them.
var knownUnits = []string{
	units.BytesIEC, units.BytesPerSecondSI, units.CountsPerSecond, units.OpsPerSecond, units.PercentUnit,
	units.RequestsPerSecond, units.Seconds, units.Short,
}

var (
	labelValues = regexp.MustCompile(`^label_values\((.+), *(\w+)\)$`)
	legendLabel = regexp.MustCompile(`{{ *(\w+) *}}`)
)

func register() {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
}

// Reads the dashboard by Grafana's own types and evaluates all that it asks Prometheus for.
func inspectDashboard(content string, scraped *store, found *findings) {
	register()
	var read dashboard.Dashboard
	if err := read.UnmarshalJSONStrict([]byte(content)); err != nil {
		found.check("dashboard", err)
		return
	}
	found.check("dashboard", read.Validate())
	values := make(map[string][]string)
	for _, variable := range read.Templating.List {
		options, err := optionsOf(variable, scraped)
		found.check("dashboard, variable "+variable.Name, err)
		values[variable.Name] = options
	}
	found.check("dashboard, panels", overlap(read.Panels))
	for _, either := range read.Panels {
		if either.Panel != nil {
			inspectPanel(either.Panel, values, scraped, found)
		}
	}
}

// What a variable may stand for in an expression: everything, and one of its values.
func optionsOf(variable dashboard.VariableModel, scraped *store) ([]string, error) {
	switch variable.Type {
	case dashboard.VariableTypeDatasource:
		return nil, nil
	case dashboard.VariableTypeQuery:
	default:
		return nil, fmt.Errorf("a variable of type %s", variable.Type)
	}
	if variable.Query == nil || variable.Definition == nil || variable.AllValue == nil {
		return nil, errors.New("no query, no definition or no value for all")
	}
	if query := variable.Query.Map["query"]; query != *variable.Definition {
		return nil, fmt.Errorf("asks for %v and shows %s", query, *variable.Definition)
	}
	parts := labelValues.FindStringSubmatch(*variable.Definition)
	if parts == nil {
		return nil, fmt.Errorf("not label_values: %s", *variable.Definition)
	}
	matchers, err := promqlParser.ParseMetricSelector(parts[1])
	if err != nil {
		return nil, err
	}
	options, _, err := scraped.LabelValues(context.Background(), parts[2], nil, matchers...)
	if err == nil && len(options) == 0 {
		err = errors.New("no values")
	}
	return append([]string{*variable.AllValue}, options...), err
}

// Panels are on the grid, and none covers another.
func overlap(panels []dashboard.PanelOrRowPanel) error {
	taken := make(map[[2]uint32]string)
	for _, either := range panels {
		title, at := "", (*dashboard.GridPos)(nil)
		if either.Panel != nil {
			title, at = *either.Panel.Title, either.Panel.GridPos
		} else {
			title, at = *either.RowPanel.Title, either.RowPanel.GridPos
		}
		if at == nil || at.X+at.W > columns {
			return fmt.Errorf("%s is not on the grid", title)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]uint32{x, y}]; other != "" {
					return fmt.Errorf("%s covers %s", title, other)
				}
				taken[[2]uint32{x, y}] = title
			}
		}
	}
	return nil
}

func inspectPanel(panel *dashboard.Panel, values map[string][]string, scraped *store, found *findings) {
	name := "dashboard, " + *panel.Title
	if panel.Type != "stat" && panel.Type != "timeseries" {
		found.check(name, fmt.Errorf("a panel of type %s", panel.Type))
	}
	for _, unit := range unitsOf(panel) {
		if !slices.Contains(knownUnits, unit) {
			found.check(name, fmt.Errorf("no unit: %s", unit))
		}
	}
	if len(panel.Targets) == 0 {
		found.check(name, errors.New("shows nothing"))
	}
	for _, target := range panel.Targets {
		query, err := queryOf(target)
		if err != nil {
			found.check(name, err)
			continue
		}
		for _, expression := range expressions(query.Expr, values) {
			found.check(name+", "+expression, show(expression, query.LegendFormat, scraped))
		}
	}
}

func unitsOf(panel *dashboard.Panel) []string {
	if panel.FieldConfig == nil || panel.FieldConfig.Defaults.Unit == nil {
		return []string{""}
	}
	found := []string{*panel.FieldConfig.Defaults.Unit}
	for _, override := range panel.FieldConfig.Overrides {
		for _, property := range override.Properties {
			if unit, is := property.Value.(string); is && property.Id == "unit" {
				found = append(found, unit)
			}
		}
	}
	return found
}

// The decoder looks for the type of a query in the query, Grafana in its panel as well: so it is said here.
func queryOf(target variants.Dataquery) (prometheus.Dataquery, error) {
	var query prometheus.Dataquery
	raw, err := json.Marshal(target)
	if err != nil {
		return query, err
	}
	return query, query.UnmarshalJSONStrict(raw)
}

// An expression as Grafana sends it, with everything and with one value of the variable.
func expressions(written string, values map[string][]string) []string {
	sent := []string{strings.ReplaceAll(written, "$__rate_interval", rateInterval)}
	for name, options := range values {
		var next []string
		for _, expression := range sent {
			for _, option := range options {
				set := regexp.MustCompile(`\$`+name+`\b`).ReplaceAllLiteralString(expression, option)
				if !slices.Contains(next, set) {
					next = append(next, set)
				}
			}
		}
		if len(options) > 0 {
			sent = next
		}
	}
	return sent
}

// An expression draws something, and has the labels that its legend names.
func show(expression string, legend *string, scraped *store) error {
	if strings.Contains(expression, "$") {
		return errors.New("a variable is not set")
	}
	if err := scraped.selects(expression); err != nil {
		return err
	}
	drawn, err := scraped.evaluate(expression)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(drawn, isFinite) {
		return fmt.Errorf("draws nothing: %v", drawn)
	}
	if legend == nil {
		return errors.New("no legend")
	}
	return names(*legend, drawn[0].Metric)
}

// A legend names the labels that tell its series apart, and no others.
func names(legend string, of labels.Labels) error {
	told := []string{labels.MetricName, "job"}
	for _, label := range legendLabel.FindAllStringSubmatch(legend, -1) {
		if !of.Has(label[1]) {
			return fmt.Errorf("no label %s for the legend", label[1])
		}
		told = append(told, label[1])
	}
	return of.Validate(func(label labels.Label) error {
		if !slices.Contains(told, label.Name) {
			return fmt.Errorf("the legend does not tell %s", label.Name)
		}
		return nil
	})
}

func isFinite(series promql.Series) bool {
	return slices.ContainsFunc(series.Floats, func(point promql.FPoint) bool {
		return !math.IsNaN(point.F) && !math.IsInf(point.F, 0)
	})
}
