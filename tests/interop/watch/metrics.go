package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

const answerBytesMax = 16 << 20

// An answer to a scrape.
type text struct {
	contentType string
	body        string
}

type sample struct {
	labels labels.Labels
	value  float64
}

func fetch(ctx context.Context, url string) (text, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return text{}, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return text{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return text{answer.Header.Get("Content-Type"), string(body)}, err
}

// As Prometheus reads it when it scrapes.
func (t text) parse() ([]sample, error) {
	parser, err := textparse.New([]byte(t.body), t.contentType, nil, textparse.ParserOptions{})
	if err != nil {
		return nil, err
	}
	var samples []sample
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return samples, nil
		}
		if err != nil {
			return nil, err
		}
		if entry == textparse.EntrySeries {
			_, timestamp, value := parser.Series()
			if timestamp != nil {
				return nil, fmt.Errorf("a sample with a time of its own: %d", *timestamp)
			}
			read := sample{value: value}
			parser.Labels(&read.labels)
			samples = append(samples, read)
		}
	}
}

// As Prometheus reads it, and by the rules of `promtool check metrics`.
func (t text) inspect(name string, found *findings) {
	samples, err := t.parse()
	if err == nil && len(samples) == 0 {
		err = errors.New("no samples")
	}
	found.check(name, err)
	problems, err := promlint.New(strings.NewReader(t.body)).Lint()
	found.check(name, err)
	for _, problem := range problems {
		found.check(name, fmt.Errorf("%s: %s", problem.Metric, problem.Text))
	}
}
