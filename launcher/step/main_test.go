package step

import (
	"os"
	"testing"

	"github.com/berth-hpc/berth/testdata/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Checked(m).Run()) }
