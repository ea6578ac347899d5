package simulator

import "time"

// queueSizes are the lengths of the mail queues, measured every 15 minutes.
var queueSizes = logbook{name: "queue", every: 15 * time.Minute, onTheDot: true}

func (s *Simulator) emailQueues(c *call) result {
	x, fail := s.extent(queueSizes, c)
	if fail != nil {
		return result{fail: []object{fail}}
	}
	queue := func(name string) []object {
		sizes := []object{}
		for n := x.first; n < x.end; n++ {
			sizes = append(sizes, object{"date": queueSizes.at(s, n).Format(bodyTime), "count": s.randFor(name, n).IntN(40)})
		}
		return sizes
	}
	return result{data: []object{{"inboundEmailQueue": queue("inbound queue"), "outboundEmailQueue": queue("outbound queue")}}}
}
