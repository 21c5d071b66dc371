// Package metrics turns what csi-ietd knows of itself into Prometheus metrics.
//
// Everything is read when it is asked for; nothing is sampled in between. All
// names begin with csi_ietd_. Labels are bounded: a volume's id, and words of
// closed lists.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "csi_ietd"

const (
	// maxScrapes bounds the scrapes at one time; one more gets 503.
	maxScrapes = 4
	// scrapeTimeout bounds one scrape. It is longer than what a single
	// figure may take.
	scrapeTimeout = 15 * time.Second
	// figureTimeout bounds what has to ask a disk.
	figureTimeout = 5 * time.Second
)

// NewRegistry returns a registry with what every role has: the build, the Go
// runtime and the process.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler serves a registry. A figure that cannot be had is left out, with a
// line in the log; the others are served.
func Handler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: errorLog{log}, ErrorHandling: promhttp.ContinueOnError, Registry: r,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	})
}

type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Warn("a metric cannot be had", "reason", v) }

// desc describes a metric of ours.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

func gauge[T int | int64](ch chan<- prometheus.Metric, d *prometheus.Desc, v T, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}
