// Sbom prints the bill of materials of a package, as SPDX 2.3 in JSON: its
// programs, and what is linked into each, with versions. packaging/build starts
// it; nobody else's rights or files are touched.
//
//	sbom -name NAME -version VERSION -epoch SECONDS [-libc NAME=VERSION]... ROOT FILE...
//
// FILEs lie below ROOT as they will be installed. What Go linked, the programs
// say themselves (debug/buildinfo, as `go version -m`). The version of a C
// library that is linked in is in no program, so -libc tells it: musl or glibc.
// The same programs and SECONDS (since 1970) give the same bytes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	libc := map[string]string{}
	name := flag.String("name", "", "the package")
	version := flag.String("version", "", "its version")
	epoch := flag.Int64("epoch", 0, "when it was made")
	flag.Func("libc", "a C library to link with, and its version", func(text string) error {
		name, version, found := strings.Cut(text, "=")
		if !found {
			return fmt.Errorf("%q is not NAME=VERSION", text)
		}
		libc[name] = version
		return nil
	})
	flag.Parse()
	if flag.NArg() < 2 || *name == "" {
		flag.Usage()
		os.Exit(64)
	}
	bill := newBill(*name, *version, time.Unix(*epoch, 0).UTC())
	for _, file := range flag.Args()[1:] {
		if err := bill.add(flag.Arg(0), file, libc); err != nil {
			fmt.Fprintf(os.Stderr, "sbom: %s: %v\n", file, err)
			os.Exit(1)
		}
	}
	text, err := json.MarshalIndent(bill.named(), "", "  ")
	if err == nil {
		_, err = fmt.Println(string(text))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}
