package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const warm = 500 * time.Millisecond

// post is a closed loop: each client sends its next request when its last one is answered. Anything but a 2xx ends it all.
func post(arguments []string) {
	flags := flag.NewFlagSet("post", flag.ExitOnError)
	url := flags.String("url", "", "")
	body := flags.String("body", "{}", "")
	clients := flags.Int("clients", 16, "")
	seconds := flags.Float64("seconds", 4, "")
	flags.Parse(arguments)

	users := client(*clients)
	begin := time.Now().Add(warm)
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	spent := make([][]float64, *clients)
	var all sync.WaitGroup
	for i := range *clients {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := 0; time.Now().Before(end); number++ {
				start := time.Now()
				send(users, *url, *body, fmt.Sprintf("%d-%d-%d-%d", os.Getpid(), begin.UnixNano(), i, number))
				if now := time.Now(); now.After(begin) && now.Before(end) {
					spent[i] = append(spent[i], milliseconds(now.Sub(start)))
				}
			}
		}()
	}
	all.Wait()
	var joined []float64
	for _, own := range spent {
		joined = append(joined, own...)
	}
	say(map[string]any{
		"per_second": float64(len(joined)) / *seconds,
		"p50":        quantile(joined, 0.5),
		"p99":        quantile(joined, 0.99),
	})
}

func send(users *http.Client, url, body, key string) {
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		fail(err)
	}
	authorize(request)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	answer, err := users.Do(request)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		fail(fmt.Sprint(answer.Status, " ", string(text), " ", err))
	}
}
