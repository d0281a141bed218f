package fault

// A Message is a fault on its way to another process: into a job's record, or
// over a socket. Its texts are one line each and safe to print.
type Message struct {
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
	Blame  string `json:"blame"` // Blame's words
}

// NewMessage makes err fit to travel.
func NewMessage(err error) *Message {
	return &Message{Text: Clean(err.Error()), Remedy: Clean(Remedy(err)), Blame: Of(err).String()}
}

// Err is the message as an error again, with its blame and remedy. The text
// already names the step that failed. A message from a less trusted process
// is cleaned once more.
func (m *Message) Err() error {
	return &Error{Op: Clean(m.Text), Blame: ParseBlame(m.Blame), Remedy: Clean(m.Remedy)}
}

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
