// Loadgen drives an HTTP server on this machine from outside and says what it saw, as one JSON object.
//
//	loadgen post -url URL -body JSON -clients 16 -seconds 4   a closed loop of POSTs, each with its own Idempotency-Key
//	loadgen read -url URL -readers 1000 -until run.completed  server-sent events, until each reader has seen that event
//
// The bearer token is taken from the environment variable LOADGEN_TOKEN, if there is one.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sort"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail("post or read?")
	}
	switch os.Args[1] {
	case "post":
		post(os.Args[2:])
	case "read":
		read(os.Args[2:])
	default:
		fail("post or read?")
	}
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "loadgen:", why)
	os.Exit(1)
}

func say(answer map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fail(err)
	}
}

// client keeps one connection for each of n users and never gives up by itself.
func client(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n, DisableCompression: true}}
}

func authorize(request *http.Request) {
	if token := os.Getenv("LOADGEN_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
}

// quantile of milliseconds, which are sorted by it; 0 of none.
func quantile(spent []float64, part float64) float64 {
	if len(spent) == 0 {
		return 0
	}
	sort.Float64s(spent)
	return spent[min(int(part*float64(len(spent))), len(spent)-1)]
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
