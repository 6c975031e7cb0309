package admin

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice/history"
	"sluice/record"
)

const (
	defaultTop = 8
	maxTop     = 100
)

// refuseParam answers a parameter that cannot be.
func refuseParam(w http.ResponseWriter, err error) {
	var bad *record.FilterError
	if errors.As(err, &bad) {
		writeError(w, 400, "invalid_request", bad.Param, bad.Error())
		return
	}
	writeError(w, 400, "invalid_request", "", err.Error())
}

func badParam(param, message string) error {
	return &record.FilterError{Param: param, Message: message}
}

// wholeParam reads a number from least to most, and takes other where there is none.
func wholeParam(q url.Values, name string, least, most, other int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return other, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, badParam(name, "must be from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
	}
	return n, nil
}

// showSeries answers what was counted over time.
func (a *Admin) showSeries(w http.ResponseWriter, r *http.Request) {
	q, err := parseSeries(r.URL.Query())
	if err != nil {
		refuseParam(w, err)
		return
	}
	writeJSON(w, 200, a.series.Answer(q, time.Now()))
}

func parseSeries(q url.Values) (s history.Query, err error) {
	if err := record.CheckParams(q, "range", "by", "name", "top"); err != nil {
		return s, err
	}
	s = history.Query{Range: "15m", Names: q["name"]}
	if name := q.Get("range"); name != "" {
		s.Range = name
	}
	if !history.ParseRange(s.Range) {
		return s, badParam("range", "must be one of "+strings.Join(history.Ranges(), ", "))
	}
	if name := q.Get("by"); name != "" {
		by, ok := history.ParseBy(name)
		if !ok {
			return s, badParam("by", "must be one of "+strings.Join(history.Names[:], ", "))
		}
		s.By = by
	}
	if len(s.Names) > maxTop {
		return s, badParam("name", "may be there "+strconv.Itoa(maxTop)+" times at most")
	}
	s.Top, err = wholeParam(q, "top", 1, maxTop, defaultTop)
	return s, err
}
