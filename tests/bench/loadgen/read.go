package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// read opens many readers of one event stream. It says {"connected": n} once all have been answered, and at the end how many
// events came, in which time from the first to the last, and how many readers did not get every number of the log once and in order.
func read(arguments []string) {
	flags := flag.NewFlagSet("read", flag.ExitOnError)
	url := flags.String("url", "", "")
	readers := flags.Int("readers", 1000, "")
	until := flags.String("until", "", "")
	flags.Parse(arguments)

	users := client(*readers)
	results := make([]result, *readers)
	var connected, all sync.WaitGroup
	slots := make(chan struct{}, 64) // so many are opened at once
	for i := range *readers {
		connected.Add(1)
		all.Add(1)
		go func() {
			defer all.Done()
			slots <- struct{}{}
			answer := open(users, *url)
			<-slots
			connected.Done()
			defer answer.Body.Close()
			results[i] = follow(bufio.NewReader(answer.Body), *until)
		}()
	}
	connected.Wait()
	say(map[string]any{"connected": *readers})
	all.Wait()
	events, broken := 0, 0
	first, last := results[0].first, results[0].last
	for _, each := range results {
		events += each.events
		if !each.whole || each.events != results[0].events {
			broken++
		}
		if each.events == 0 {
			continue
		}
		if each.first.Before(first) {
			first = each.first
		}
		if each.last.After(last) {
			last = each.last
		}
	}
	say(map[string]any{"events": events, "seconds": last.Sub(first).Seconds(), "broken": broken})
}

type result struct {
	events      int
	first, last time.Time
	whole       bool
}

func open(users *http.Client, url string) *http.Response {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		fail(err)
	}
	authorize(request)
	answer, err := users.Do(request)
	if err != nil {
		fail(err)
	}
	if answer.StatusCode != http.StatusOK {
		fail(answer.Status)
	}
	return answer
}

// follow counts events that have a number, that is those of the log.
func follow(lines *bufio.Reader, until string) result {
	found := result{whole: true}
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			found.whole = false
			return found
		}
		line = strings.TrimSpace(line)
		if number, is := strings.CutPrefix(line, "id: "); is {
			found.events++
			found.last = time.Now()
			if found.events == 1 {
				found.first = found.last
			}
			found.whole = found.whole && number == fmt.Sprint(found.events)
		}
		if line == "event: "+until {
			return found
		}
	}
}
