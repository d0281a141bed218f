package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// A document is SPDX's, as far as it is used here:
// https://spdx.github.io/spdx-spec/v2.3/
type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []component    `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

// A component is one of SPDX's packages: the package of ours, a program, a
// module, a library.
type component struct {
	ID        string      `json:"SPDXID"`
	Name      string      `json:"name"`
	Version   string      `json:"versionInfo,omitempty"`
	File      string      `json:"packageFileName,omitempty"`
	Purpose   string      `json:"primaryPackagePurpose"`
	Source    string      `json:"sourceInfo,omitempty"`
	Download  string      `json:"downloadLocation"`
	Analyzed  bool        `json:"filesAnalyzed"`
	Declared  string      `json:"licenseDeclared"`
	Concluded string      `json:"licenseConcluded"`
	Copyright string      `json:"copyrightText"`
	Checksums []checksum  `json:"checksums,omitempty"`
	Refs      []reference `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

// A reference is a component's name elsewhere.
type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const home = "https://github.com/berth-hpc/berth"

// A bill is the document of one package while it grows.
type bill struct {
	document
	own component
}

func newBill(name, version string, made time.Time) *bill {
	b := &bill{document: document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name + "-" + version,
		Creation: creation{made.Format(time.RFC3339), []string{"Tool: berth-packaging-sbom"}},
	}}
	b.own = ours(component{Name: name, Version: version, Purpose: "INSTALL"})
	b.have(b.document.ID, "DESCRIBES", b.own)
	return b
}

// ours is a component that Berth's project made.
func ours(c component) component {
	c.Download, c.Declared = home, "Apache-2.0"
	return c
}

// unsafe are the characters that an identifier of SPDX cannot have.
var unsafe = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// have says that from has to, which is added unless it is there, and returns its
// identifier.
func (b *bill) have(from, how string, to component) (id string) {
	to.ID = "SPDXRef-" + unsafe.ReplaceAllString(to.Purpose+"-"+to.Name+"-"+to.Version, "-")
	to.Concluded, to.Copyright = "NOASSERTION", "NOASSERTION"
	if to.Declared == "" {
		to.Download, to.Declared = "NOASSERTION", "NOASSERTION"
	}
	known := false
	for _, c := range b.Packages {
		known = known || c.ID == to.ID
	}
	if !known {
		b.Packages = append(b.Packages, to)
	}
	b.Relationships = append(b.Relationships, relationship{from, how, to.ID})
	return to.ID
}

// named is the document with a name that no other content has.
func (b *bill) named() document {
	d := b.document
	text, _ := json.Marshal(d)
	d.Namespace = fmt.Sprintf("%s/spdx/%s-%x", home, d.Name, sha256.Sum256(text))
	return d
}
