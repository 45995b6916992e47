// Prometheus' and Grafana's own code over what ringlog gives them: its metrics, the dashboard and the alerts of ops/.
//
// Usage: watch RINGLOG HOST:PORT URL OPS [planted]. RINGLOG makes load for the broker at HOST:PORT while URL, its
// metrics, is scraped; OPS is the directory with the dashboard and the alerts. With planted each fault of `plants` is to
// be caught instead.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	deadline     = 60 * time.Second
	loadTime     = "8s"
	scrapePause  = time.Second
	scrapesLeast = 5
)

// What is looked at.
type subject struct {
	// By the query behind URL.
	texts     map[string]text
	store     *store
	dashboard string
	alerts    string
}

var queries = []string{"", "?topics=true", "?partitions=true", everything}

const everything = "?topics=true&partitions=true"

// Scrapes the broker while it has load, and asks it for what it does not have, so that errors are counted as well.
func watch(ctx context.Context, ringlog, bootstrap, url string) (*store, error) {
	load := exec.CommandContext(ctx, ringlog, "bench", "end-to-end", "-b", bootstrap, "--rate", "5k", "--warm-up", "0s",
		"--duration", loadTime, "--check", "--quiet")
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	if err := load.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	scraped, tick := newStore(), time.NewTicker(scrapePause)
	defer tick.Stop()
	for {
		scrape, err := fetch(ctx, url+everything)
		if err != nil {
			return nil, err
		}
		if err := scraped.add(scrape); err != nil {
			return nil, err
		}
		if exec.CommandContext(ctx, ringlog, "consume", "-b", bootstrap, "missing").Run() == nil {
			return nil, fmt.Errorf("a topic that is not there was read")
		}
		select {
		case err := <-ended:
			if err != nil {
				return nil, fmt.Errorf("the load: %w: %s", err, said.String())
			}
			if scraped.scrapes < scrapesLeast {
				return nil, fmt.Errorf("only %d scrapes", scraped.scrapes)
			}
			return scraped, nil
		case <-tick.C:
		}
	}
}

func look(ctx context.Context, ringlog, bootstrap, url, ops string) (subject, error) {
	of := subject{texts: make(map[string]text)}
	for path, content := range map[string]*string{
		filepath.Join(ops, "grafana", "ringlog.json"):  &of.dashboard,
		filepath.Join(ops, "prometheus", "alerts.yml"): &of.alerts,
	} {
		read, err := os.ReadFile(path)
		if err != nil {
			return of, err
		}
		*content = string(read)
	}
	var err error
	if of.store, err = watch(ctx, ringlog, bootstrap, url); err != nil {
		return of, err
	}
	for _, query := range queries {
		if of.texts[query], err = fetch(ctx, url+query); err != nil {
			return of, err
		}
	}
	return of, nil
}

// How much was looked at, and what is wrong with it.
type findings struct {
	checks int
	wrong  []string
}

func (f *findings) check(what string, err error) {
	f.checks++
	if err != nil {
		// On one line, however many the error has.
		f.wrong = append(f.wrong, strings.Join(strings.Fields(fmt.Sprintf("%s: %v", what, err)), " "))
	}
}

func (of subject) inspect() findings {
	var found findings
	for _, query := range queries {
		of.texts[query].inspect("/metrics"+query, &found)
	}
	inspectDashboard(of.dashboard, of.store, &found)
	inspectAlerts(of.alerts, of.store, &found)
	return found
}

// A fault, and a part of what is to be said of it.
type plant struct {
	name, says string
	put        func(*subject)
}

// The first of it, as something else.
func instead(within *string, old, new string) {
	*within = strings.Replace(*within, old, new, 1)
}

func inText(old, new string) func(*subject) {
	return func(of *subject) {
		changed := of.texts[everything]
		instead(&changed.body, old, new)
		of.texts[everything] = changed
	}
}

var plants = []plant{
	{"a metric by another name", "nothing is selected", func(of *subject) {
		instead(&of.dashboard, "ringlog_appends_total", "ringlog_append_total")
	}},
	{"an expression that does not end", "parse error", func(of *subject) {
		instead(&of.dashboard, `[$__rate_interval]))"`, `[$__rate_interval])"`)
	}},
	{"a variable that nobody sets", "is not set", func(of *subject) {
		instead(&of.dashboard, "$instance", "$instances")
	}},
	{"a legend by a label that is not there", "no label", func(of *subject) {
		instead(&of.dashboard, `"{{api}}"`, `"{{apis}}"`)
	}},
	{"a field that Grafana does not know", "unexpected", func(of *subject) {
		instead(&of.dashboard, `"placement"`, `"placements"`)
	}},
	{"a query's field that Grafana does not know", "unexpected", func(of *subject) {
		instead(&of.dashboard, `"legendFormat"`, `"legend"`)
	}},
	{"a number for a text", "cannot unmarshal", func(of *subject) {
		instead(&of.dashboard, `"unit": "Bps"`, `"unit": 1`)
	}},
	{"a unit that Grafana does not know", "no unit", func(of *subject) {
		instead(&of.dashboard, `"unit": "Bps"`, `"unit": "Bits"`)
	}},
	{"a label without quotes", "expected label value", inText(`shard="0"`, `shard=0`)},
	{"a counter by a gauge's name", "_total", inText("ringlog_partitions gauge", "ringlog_partitions counter")},
	{"a rule's field that Prometheus does not know", "not found in type", func(of *subject) {
		instead(&of.alerts, "annotations:", "annotation:")
	}},
	{"an alert by another name of its metric", "nothing is selected", func(of *subject) {
		instead(&of.alerts, "ringlog_log_dir_online", "ringlog_log_dirs_online")
	}},
	{"an alert that always fires", "fires on a healthy broker", func(of *subject) {
		instead(&of.alerts, "ringlog_log_dir_online == 0", "ringlog_log_dir_online == 1")
	}},
	{"an alert that never fires", "does not fire", func(of *subject) {
		instead(&of.alerts, "ringlog_log_dir_online == 0", "ringlog_log_dir_online == 2")
	}},
}

// Each fault on its own, and nothing else: the rest of the subject has none.
func (of subject) caught(planted plant) (string, bool) {
	texts := make(map[string]text, len(of.texts))
	for query, whole := range of.texts {
		texts[query] = whole
	}
	of.texts = texts
	planted.put(&of)
	for _, wrong := range of.inspect().wrong {
		if strings.Contains(wrong, planted.says) {
			return wrong, true
		}
	}
	return "", false
}

func run() int {
	arguments := os.Args[1:]
	plant := len(arguments) == 5 && arguments[4] == "planted"
	if len(arguments) != 4 && !plant {
		fmt.Fprintln(os.Stderr, "usage: watch RINGLOG HOST:PORT URL OPS [planted]")
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	of, err := look(ctx, arguments[0], arguments[1], arguments[2], arguments[3])
	if err != nil {
		fmt.Println("FAILED", err)
		return 1
	}
	if plant {
		for _, planted := range plants {
			if wrong, caught := of.caught(planted); caught {
				fmt.Printf("FAILED planted %s: %s\n", planted.name, wrong)
			} else {
				fmt.Println("unnoticed:", planted.name)
			}
		}
		return 1
	}
	found := of.inspect()
	for _, wrong := range found.wrong {
		fmt.Println("FAILED", wrong)
	}
	fmt.Printf("watch: %d checks over %d scrapes, %d failed\n", found.checks, of.store.scrapes, len(found.wrong))
	if len(found.wrong) > 0 {
		return 1
	}
	return 0
}

func main() { os.Exit(run()) }
