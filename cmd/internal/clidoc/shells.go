package clidoc

import "fmt"

// Script returns what makes a shell complete berth's command lines. The shell
// asks `berth complete`, so that scripts need no change with the commands.
func Script(shell string) (string, error) {
	switch shell {
	case "bash":
		return bash, nil
	case "zsh":
		return zsh, nil
	case "fish":
		return fish, nil
	}
	return "", fmt.Errorf("no completions for %q", shell)
}

// bash breaks words at colons and equal signs, and wants back what comes after
// the last of them.
const bash = `# bash completion for berth: berth completion bash
_berth() {
  local line=${COMP_LINE:0:COMP_POINT} value words=()
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local typed=${words[-1]}
  local before=${typed%"${typed##*[:=]}"}
  COMPREPLY=()
  while IFS=$'\t' read -r value _; do
    COMPREPLY+=("${value#"$before"}")
  done < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _berth berth
`

const zsh = `#compdef berth
# zsh completion for berth: berth completion zsh
_berth() {
  local line
  local -a found
  for line in "${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  if (( ${#found} )); then
    _describe berth found
  else
    _files
  fi
}
if [[ ${funcstack[1]} == _berth ]]; then
  _berth "$@"
else
  compdef _berth berth
fi
`

const fish = `# fish completion for berth: berth completion fish
complete -c berth -a '(berth complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`
