package fault

// A Message is a fault on its way to another process: into a job's record, or
// over a socket. Its texts are one line each and safe to print.
type Message struct {
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	Blame  string `json:"blame"`           // Blame's words
	Cause  string `json:"cause,omitempty"` // CauseOf's, where that is another word
}

// NewMessage makes err fit to travel.
func NewMessage(err error) *Message {
	m := &Message{Text: Clean(err.Error()), Remedy: Clean(Remedy(err)), Blame: Of(err).String()}
	if cause := CauseOf(err); cause != m.Blame {
		m.Cause = cause
	}
	return m
}

// Err is the message as an error again, with its blame and remedy. The text
// already names the step that failed. A message from a less trusted process
// is cleaned once more.
func (m *Message) Err() error {
	return &Error{Op: Clean(m.Text), Blame: ParseBlame(m.Blame), Remedy: Clean(m.Remedy), Cause: knownCause(m.Cause)}
}

// Counted is the word by which the fault is counted: one of Causes.
func (m *Message) Counted() string { return CauseOf(m.Err()) }

// maxText bounds a line for the user, in characters.
const maxText = 2048

// Clean makes a text fit to be printed and logged: no control characters,
// bounded. Registries and users choose parts of it.
func Clean(s string) string {
	out := make([]rune, 0, min(len(s), maxText))
	for _, r := range s {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			r = ' '
		}
		if out = append(out, r); len(out) == maxText {
			break
		}
	}
	return string(out)
}
